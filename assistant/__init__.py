"""The runtime of Earshot: speech in, two lanes of streamed text and speech out. Knows neither `ui` nor `train`."""

import os

# Nothing leaves this machine: these libraries may report usage unless told not to before they are imported.
os.environ.update(
    GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", ORT_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
)
