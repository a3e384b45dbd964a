"""The parts of `python -m train.evaluation.evaluate`: what is heard, answered, judged, summed up and reported."""
