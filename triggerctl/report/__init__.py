"""Reports: figures of one run, and tables, figures and a page over many runs.

Plotly, Jinja and Kaleido are imported by this room alone, and only when one of its modules is.
"""
