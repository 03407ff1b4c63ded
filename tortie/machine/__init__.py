"""What is on a machine, whose it is, and how it is taken away: `tortie node cleanup` and `tortie node takeover`.

    reading  --> Machine (what is there, as values)
    ours | flannel | calico: Machine --> Plan (steps in their order, what stays and why); pure
    carrying: Plan --> commands, one after the other; files into a backup

A dry run prints the plan; the same plan is what is carried out. What cannot be told as theirs by its own marks stays.
"""
