"""What can be wrong with an input.

Uncompilable      one field of a policy has no meaning; the policy's translator decides what becomes of the rule
"""


class Uncompilable(ValueError):
    """The text is one phrase about the value; whoever catches it adds the path of the field."""
