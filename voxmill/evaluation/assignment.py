"""One-to-one matching along given pairs: most pairs first, then the least total distance.

Every connected component of the graph of pairs is solved on its own: components of one pair in one
step, small ones as dense assignment problems (`scipy.optimize.linear_sum_assignment`, after Crouse,
IEEE Trans. Aerosp. Electron. Syst. 2016), the rest as one sparse problem (LAPJVsp, Jonker &
Volgenant, Computing 1987; `scipy.sparse.csgraph.min_weight_full_bipartite_matching`).
"""

import itertools

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

# Dense components up to this many entries; larger ones are cheaper as sparse problems.
DENSE_ENTRIES = 400


def match_pairs(
    rows: np.ndarray,
    columns: np.ndarray,
    distances: np.ndarray,
    max_distance: float,
    n_truth: int,
    n_found: int,
) -> np.ndarray:
    """Match one to one along given pairs: most pairs first, then least total distance.

    Parameters
    ----------
    rows, columns : (E,) int arrays
        The true and the found object of each pair that may be matched; no pair comes twice.
    distances : (E,) float array
        From 0 to `max_distance`.
    max_distance : float
    n_truth, n_found : int
        Numbers of true and of found objects.

    Returns
    -------
    pairs : (K, 2) int array
        As of `match_points`.
    """
    if not len(rows):
        return np.zeros((0, 2), dtype=np.int64)
    n_nodes = n_truth + n_found
    graph = coo_array((np.ones(len(rows)), (rows, columns + n_truth)), shape=(n_nodes, n_nodes))
    _, component = connected_components(graph, directed=False)
    edge_component = component[rows]
    truths = np.bincount(component[:n_truth], minlength=component.max() + 1)
    founds = np.bincount(component[n_truth:], minlength=len(truths))
    entries = (truths * founds)[edge_component]
    smaller = int(np.minimum(truths, founds).max())
    costs, forbidden = _integer_costs(distances, max_distance, smaller)

    single = entries == 1
    parts = [np.column_stack([rows[single], columns[single]])]
    dense = (entries > 1) & (entries <= DENSE_ENTRIES)
    parts += _match_dense(
        rows[dense], columns[dense], costs[dense], edge_component[dense], forbidden
    )
    sparse = entries > DENSE_ENTRIES
    if sparse.any():
        parts.append(_match_sparse(rows[sparse], columns[sparse], costs[sparse], forbidden))
    pairs = np.concatenate(parts).astype(np.int64)
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


def _integer_costs(
    distances: np.ndarray, max_distance_um: float, smaller_side: int
) -> tuple[np.ndarray, float]:
    """Distances as whole numbers, and the cost of a point that stays unmatched.

    With whole numbers below 2**53 all sums of the solvers are exact in float64. One pair more may
    raise the total by at most `smaller_side` times the largest cost; `forbidden` is above that, so
    that the number of pairs always comes first.
    """
    bits = min(30, 49 - int(np.ceil(np.log2(smaller_side + 2))))
    # From 1, not 0: the sparse solver takes a zero for "no pair".
    costs = 1 + np.rint(np.minimum(distances / max_distance_um, 1.0) * 2.0**bits)
    return costs, (smaller_side + 1) * (2.0**bits + 2)


def _match_dense(
    rows: np.ndarray,
    columns: np.ndarray,
    costs: np.ndarray,
    component: np.ndarray,
    forbidden: float,
) -> list[np.ndarray]:
    """Solve every small component as a dense assignment problem; a list of (·, 2) arrays."""
    order = np.argsort(component, kind="stable")
    rows, columns, costs, component = (a[order] for a in (rows, columns, costs, component))
    bounds = np.r_[0, np.flatnonzero(np.diff(component)) + 1, len(rows)] if len(rows) else [0]
    parts = []
    for start, stop in itertools.pairwise(bounds):
        row_ids, local_rows = np.unique(rows[start:stop], return_inverse=True)
        column_ids, local_columns = np.unique(columns[start:stop], return_inverse=True)
        matrix = np.full((len(row_ids), len(column_ids)), forbidden)
        matrix[local_rows, local_columns] = costs[start:stop]
        chosen_rows, chosen_columns = linear_sum_assignment(matrix)
        allowed = matrix[chosen_rows, chosen_columns] < forbidden
        parts.append(
            np.column_stack([row_ids[chosen_rows[allowed]], column_ids[chosen_columns[allowed]]])
        )
    return parts


def _match_sparse(
    rows: np.ndarray, columns: np.ndarray, costs: np.ndarray, forbidden: float
) -> np.ndarray:
    """Solve all large components as one sparse problem.

    Every row gets a column of its own, at the cost of staying unmatched, so that a full matching
    always exists.
    """
    row_ids, local_rows = np.unique(rows, return_inverse=True)
    column_ids, local_columns = np.unique(columns, return_inverse=True)
    n_rows, n_columns = len(row_ids), len(column_ids)
    own = np.arange(n_rows)
    problem = coo_array(
        (
            np.r_[costs, np.full(n_rows, forbidden)],
            (np.r_[local_rows, own], np.r_[local_columns, n_columns + own]),
        ),
        shape=(n_rows, n_columns + n_rows),
    ).tocsr()
    chosen_rows, chosen_columns = min_weight_full_bipartite_matching(problem)
    real = chosen_columns < n_columns
    return np.column_stack([row_ids[chosen_rows[real]], column_ids[chosen_columns[real]]])
