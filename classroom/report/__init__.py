"""The report that a comparison leaves: one HTML file that needs nothing else."""

from classroom.report.headline import headline as headline
from classroom.report.page import write_report as write_report
