"""Relationships in a file: members, and the parents or the matrix of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import csc_array

from mixform._typing import AnyArray
from mixform.relationship import (
    Covariance,
    Pedigree,
    Precision,
    SingleStep,
    loading,
    precision,
    resolve_relationship,
    single_step,
)
from mixform.relationship.relation import PedigreeRelation
from mixform.storage.archive import Arrays


def describe_relationship(
    given: Mapping[str, object] | None, arrays: Arrays
) -> dict[str, Any] | None:
    """Return where each relationship stands among the arrays."""
    if given is None:
        return None
    out: dict[str, Any] = {}
    for name, relation in resolve_relationship(given).items():
        entry: dict[str, Any] = {"labels": [str(x) for x in relation.labels]}
        if isinstance(relation, PedigreeRelation):
            entry["sire"] = arrays.add(relation.pedigree.sire)
            entry["dam"] = arrays.add(relation.pedigree.dam)
        elif isinstance(relation, Precision):
            Q = relation.precision
            entry["precision"] = [arrays.add(x) for x in (Q.data, Q.indices, Q.indptr)]
        elif isinstance(relation, SingleStep):
            entry["genotyped"] = [str(x) for x in relation.labels[relation.genotyped]]
            entry["sire"] = arrays.add(relation.pedigree.sire)
            entry["dam"] = arrays.add(relation.pedigree.dam)
            entry["G"] = arrays.add(relation.G)
            choices = ("blend", "align", "tau", "omega")
            entry["choices"] = {name: getattr(relation, name) for name in choices}
        elif isinstance(relation, Covariance):
            entry["loading"], entry["zero"] = (
                arrays.add(relation.loading),
                relation.zero,
            )
        out[name] = entry
    return out


def restore_relationship(
    described: Mapping[str, Any] | None, arrays: Mapping[str, AnyArray]
) -> dict[str, object] | None:
    """Return the relationships that `describe_relationship` described."""
    if described is None:
        return None
    out: dict[str, object] = {}
    for name, entry in described.items():
        labels: list[Any] = entry["labels"]
        if "sire" in entry:
            known = np.array([*labels, None], dtype=object)  # position -1: unknown
            sire, dam = known[arrays[entry["sire"]]], known[arrays[entry["dam"]]]
            pedigree = Pedigree(labels, sire, dam, hermaphrodite=True)
            out[name] = pedigree
            if "G" in entry:
                own = entry["genotyped"]
                G = pd.DataFrame(arrays[entry["G"]], index=own, columns=own)
                out[name] = single_step(pedigree, G, **entry["choices"])
        elif "precision" in entry:
            data, indices, indptr = (arrays[place] for place in entry["precision"])
            Q = csc_array((data, indices, indptr), shape=(len(labels), len(labels)))
            out[name] = precision(Q, labels)
        else:
            F = arrays[entry["loading"]]
            out[name] = replace(loading(F, labels), zero=entry["zero"])
    return out
