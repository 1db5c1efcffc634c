"""`dexml report RUN [RUN ...]`: one HTML page about a run, or about several side by side.

run.py reads a run folder, evidence.py joins its predictions with the data, figures.py draws and page.py fills the
template; each section has a file of its own. A part without its files is left out with a note.
"""
