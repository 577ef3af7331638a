"""
Hostile bytes: what is checked of every input that anybody may send, and the fuzzer that makes the inputs.

Each target is a module with a function ``check(data)``, which raises where a promise does not hold.  It needs nothing
but darner, so that the ordinary tests run all seeds, and inputs of their own, through it.  ``python -m fuzz TARGET``
has atheris make the inputs, guided by what they reach in darner's code.

``wire``
    Request lines, by themselves.
``protocol``
    Clients over memory transports whose commands are known, so that a reference says what each has to be answered.
``stream``
    Clients that send any bytes.
``client``
    What servers send to clients (`darner.client.protocol`), and what ours does.
``files``
    Queue names that would like to be paths, over a store on disk.
"""
