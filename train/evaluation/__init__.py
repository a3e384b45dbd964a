"""The parts of `python -m train.evaluate`: what is heard, answered, judged, summed up and reported."""
