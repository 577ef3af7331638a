"""
The program ``darner``, for sphinx-click.
"""

from darner.commands.program import make_program

program = make_program()
