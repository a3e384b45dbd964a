"""The runtime of Earshot: speech in, two lanes of streamed text and speech out. Knows neither `ui` nor `train`."""
