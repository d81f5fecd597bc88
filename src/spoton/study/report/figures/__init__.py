"""The report's figures. Each is drawn once, by matplotlib, and written as SVG into the page and as SVG, PDF and PNG."""

from spoton.study.report.figures.draw import draw_figures as draw_figures
