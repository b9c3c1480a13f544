"""A change of model while the collection is searched and written to.

`planning` tells what it takes. `filling` makes a second space and embeds what that lacks, by any number
of workers on any machine; writes go to both from then on. What has a vector is done, so it can be ended
and begun again at any time. `judging` compares the new space with the old one, and `switching` makes it
the one that is searched, in one transaction; the old one is kept up to date until it is retired, so that
activating it again is all that a way back takes. `running` does one after the other.
"""
