"""Pods without Kubernetes: network namespaces that are plugged into a node as a container runtime would do it.

    plugging    one call of the CNI plugin: ADD, DEL, GC          used by the lab, too
    manifest    the Pod resource that Kubernetes would hold       used by the lab, too
    records     what this node runs, under /run: it lives exactly as long as the namespaces do
    processes   a command inside a pod: started, signalled, waited for;   shim.py waits for a detached one
    runtime     the order of it all: a pod is started, removed, or found to be gone

`tortie pod` is the command line of it (`tortie/cli/pod.py`).
"""
