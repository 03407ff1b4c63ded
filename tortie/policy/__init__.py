"""What policies mean, found without a kernel, a bus or root: the compiler and the verdicts in memory.

offline     resources and pods -> compiled policy;    cases, judging   a user's tests;    classes, changes   a diff
"""
