"""Registers the observer that hands runs to experiment trackers. Imports none of them."""

from __future__ import annotations

from harness_observers.tracking import Tracking

observer = Tracking()
