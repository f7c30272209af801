"""Many pictures, one job: plan, restore one by one, journal, report.

Re-running is resuming: what the journal knows as finished, and whose output is still there byte
for byte, is skipped. The journal is a hint, the outputs are the truth. An input is never touched
and an existing file never replaced, unless asked to and known, by its hash, as ours.
"""

from .job import Job, Outcome, Record, Restored
from .journal import Journal
from .planning import Planned, plan
from .running import run

__all__ = ["Job", "Journal", "Outcome", "Planned", "Record", "Restored", "plan", "run"]
