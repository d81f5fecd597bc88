"""The report of a study: one HTML file that works offline, Markdown with the same numbers, and pictures for papers."""

from spoton.study.report.write import write_report as write_report
