"""The report's figures. matplotlib draws each once, as SVG for the page and as SVG, PDF and PNG files."""

from spoton.study.report.figures.draw import draw_figures as draw_figures
