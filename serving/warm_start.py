"""Whether a speaker's earlier recordings warm the front end: a look-up with a deadline."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.bundle import BundleConfig
from features.priors import PriorView
from serving.front_end import StartState
