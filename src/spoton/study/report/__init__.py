"""The report of a study: one HTML file that works offline, Markdown with the same numbers, figures and tables."""

from spoton.study.report.write import write_report as write_report
