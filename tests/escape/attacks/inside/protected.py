"""Acts of `paths.py` against protected places inside of a granted tree."""

import os

from kit import GRANTED, Absent, append, attack, create, own

REPOSITORY = f"{GRANTED}/repository"


@attack(control=lambda: own("unprotected"))
def protected_file():
    return append(REPOSITORY + "/.git/config")


@attack(control=lambda: own("unprotected"))
def protected_file_made_later():
    return create(f"{GRANTED}/settings.json")


@attack(control=lambda: own("unprotected"))
def protected_name_made_later():
    return create(REPOSITORY + "/below/.env")


@attack(control=lambda: own("unprotected"))
def protected_in_a_new_repository():
    os.makedirs(f"{GRANTED}/cloned/.git/hooks")
    return create(f"{GRANTED}/cloned/.git/hooks/pre-commit")


@attack(control=lambda: os.rename(own("mine"), own("replaced")))
def renamed_over_a_protected_file():
    os.rename(own("mine"), REPOSITORY + "/.git/config")
    return "has taken its place"


@attack(control=lambda: os.unlink(own("mine")))
def removed_protected_file():
    return os.unlink(REPOSITORY + "/.git/hooks/pre-commit") or "removed it"


@attack(control=lambda: os.link(own("mine"), f"{GRANTED}/second"))
def hard_link_to_a_protected_file():
    os.link(REPOSITORY + "/.git/config", f"{GRANTED}/second-name-of-config")
    return append(f"{GRANTED}/second-name-of-config")


@attack(control=lambda: append(own("shallow")))
def deep_protected_file():
    return append(f"{GRANTED}/1/2/3/4/5/6/7/8/.git/config")


@attack(control=lambda: own("late.txt"))
def protected_by_a_pattern_and_made_later():
    os.mkdir(f"{GRANTED}/late")
    return create(f"{GRANTED}/late/key.pem")


@attack()
def other_case():
    if not os.path.exists(f"{GRANTED}/REPOSITORY"):
        raise Absent("the file system tells upper from lower case")
    return append(REPOSITORY + "/.GIT/config")


@attack(control=lambda: os.rename(own("mine"), f"{GRANTED}/mine-moved"))
def rebuilt_ancestor():
    os.rename(REPOSITORY, f"{GRANTED}/away")
    os.makedirs(REPOSITORY + "/.git/hooks")
    return create(REPOSITORY + "/.git/hooks/pre-commit")
