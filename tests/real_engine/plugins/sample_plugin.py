"""The sample plugin under the name by which the daemon's tests load it; it stands among what tests share."""

from sample_plugin import SamplePlugin

__all__ = ["SamplePlugin"]
