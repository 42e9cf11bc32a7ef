"""The results of one or several runs in one HTML file that works offline, and as pictures for papers."""

from landscape_lab.report.page import write_report
from landscape_lab.report.pictures import draw_pictures
from landscape_lab.report.results import Results, read_results

__all__ = ["Results", "draw_pictures", "read_results", "write_report"]
