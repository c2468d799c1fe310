"""The systems that AVTS is compared with: each a `SyncModel`, in the module that `system` names.

The same trainer, evaluation and probes take them all. Each is as simple as what is known of the
published system allows.
"""
