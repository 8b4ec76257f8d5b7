"""The linear sum assignment problem, exactly: which column each row takes so that the sum is greatest.

Shortest augmenting paths (Jonker and Volgenant, Computing 38, 1987): prices of rows and columns are kept under which
no pair costs less than nothing and each pair taken costs nothing. First all rows without a column bid for one, over
and over; then each row still left over is taken in along the cheapest path to a free column. At worst n² steps over n
numbers each, which it comes near to where similarities are products x_i y_j. No rectangular problems.
"""

import torch
from torch import Tensor

_FREE = -1
_BIDS = 256  # a row may make, on average: later bids win little


def assign(similarity: Tensor) -> Tensor:
    """The assignment of greatest similarity; of several, always the same one.

    Args:
        similarity: [n, n], finite.

    Returns:
        int64 [n], a permutation p, on the CPU: row i takes column p[i], and no other makes Σ_i similarity[i, p[i]]
        greater. Sums are compared in float64, so sums that differ by its rounding count as equal.

    Raises:
        ValueError: not square, or not finite.
    """
    if similarity.dim() != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"similarity of shape {list(similarity.shape)} is not square")
    if not bool(torch.isfinite(similarity).all()):
        raise ValueError("similarity has NaN or infinity")
    if len(similarity) < 2:
        return torch.arange(len(similarity))
    with torch.inference_mode():
        problem = _Problem(similarity.detach().cpu().double().neg())
        for row, column in enumerate(problem.column_of):
            if column == _FREE:
                problem.take_in(row)
    return torch.tensor(problem.column_of)


class _Problem:
    """A problem of least cost on its way to the solution.

    Attributes:
        column_of, row_of: who is paired with whom; `_FREE` where nobody.
    """

    def __init__(self, cost: Tensor) -> None:
        self._cost, self._of_columns = cost, cost.min(0).values
        columns, rows = (torch.full((len(cost),), _FREE) for _ in range(2))
        rounds, left = len(cost), _BIDS * len(cost)
        while rounds > 0 and left > 0:
            made = self._bid(columns, rows)
            rounds, left = rounds - 1, left - made if made else 0
        self._of_rows = (cost - self._of_columns).min(1).values
        self.column_of, self.row_of = columns.tolist(), rows.tolist()

    def _bid(self, columns: Tensor, rows: Tensor) -> int:
        """All rows left over ask for their cheapest column; how many did, 0 if that is of no use any more.

        A column goes to the row to which it is worth most more than the second cheapest, for that much: then both
        cost that row the same, and nobody pays more than the cheapest ("augmenting row reduction").

        Args:
            columns: int64 [n], each row's column; changed.
            rows: int64 [n], each column's row; changed.
        """
        asking = (columns == _FREE).nonzero().flatten()
        if not len(asking):
            return 0
        made = len(asking)
        costs = self._cost[asking] - self._of_columns
        least, wanted = costs.min(1)
        worth = costs.scatter_(1, wanted[:, None], torch.inf).min(1).values - least
        useful = (worth > 0) | (rows[wanted] == _FREE)  # else rows of equal right would drive each other out for ever
        asking, wanted, worth = asking[useful], wanted[useful], worth[useful]
        most = torch.full_like(self._of_columns, -1).scatter_reduce(0, wanted, worth, "amax")
        place = torch.arange(len(asking))
        first = torch.full_like(rows, len(rows)).scatter_reduce(
            0, wanted, torch.where(worth == most[wanted], place, len(rows)), "amin"
        )
        winning = place == first[wanted]
        asking, wanted, worth = asking[winning], wanted[winning], worth[winning]
        outbid = rows[wanted]
        columns[outbid[outbid != _FREE]] = _FREE
        rows[wanted], columns[asking] = asking, wanted
        self._of_columns[wanted] -= worth
        return made if len(asking) else 0

    def take_in(self, start: int) -> None:
        """Finds a row its column, at the least cost to all, and corrects the prices (Dijkstra's algorithm)."""
        ahead = torch.full((len(self._cost),), torch.inf, dtype=torch.float64)  # of columns not settled, how far
        before = torch.full((len(self._cost),), start)  # from which row a column is reached
        price = self._of_columns.clone()  # -inf once a column is settled: no way leads there again
        rows, settled, reached = [start], [], 0.0
        while True:
            self._look(rows, reached, price, ahead, before)
            nearest = ahead.min()
            reached = nearest.item()
            columns = (ahead == nearest).nonzero().flatten().tolist()
            end = next((column for column in columns if self.row_of[column] == _FREE), None)
            if end is not None:
                break
            settled.append((columns, reached))
            ahead[columns], price[columns] = torch.inf, -torch.inf
            rows = [self.row_of[column] for column in columns]
        self._of_rows[start] += reached
        for columns, distance in settled:
            self._of_columns[columns] -= reached - distance
            self._of_rows[[self.row_of[column] for column in columns]] += reached - distance
        self._switch(start, end, before)

    def _look(self, rows: list[int], reached: float, price: Tensor, ahead: Tensor, before: Tensor) -> None:
        """Where one gets from rows that are `reached`, written into `ahead` and `before`."""
        for row in rows:
            ways = (self._cost[row] - price).add_(reached - self._of_rows[row])
            before.masked_fill_(ways < ahead, row)
            torch.minimum(ahead, ways, out=ahead)

    def _switch(self, start: int, end: int, before: Tensor) -> None:
        """Pairs anew along the path that ends in a free column."""
        row, column = _FREE, end
        while row != start:
            row = int(before[column])
            self.row_of[column] = row
            self.column_of[row], column = column, self.column_of[row]
