"""Rows of the methods that interpolate along the sphere."""

from merging.catalog.declare import Method, Parameter
from merging.catalog.parameters import option, weight

_COST = "one pass over memory; inner products once a study"
_SLERP = "https://doi.org/10.1145/325165.325242"
_AVERAGES = "https://doi.org/10.1145/502122.502124"
_OVER = option("over", "what has an angle of its own", "tensor", ("tensor", "row", "column"), stage="combine")


def _origin(default: str) -> Parameter:
    doc = "the sphere's centre: `zero` turns the models themselves, `base` their deltas"
    return option("origin", doc, default, ("zero", "base"), stage="combine")


METHODS = (
    Method(
        "slerp",
        "spherical interpolation between two experts; t = w_2 / (w_1 + w_2)",
        "[sin((1−t)Ω) X_1 + sin(tΩ) X_2] / sin Ω, Ω the angle between X_1 and X_2",
        "merging.methods.spherical:slerp",
        _SLERP,
        _COST,
        "the line where |cos Ω| > 0.9995, as mostly for fine-tunes whose deltas are below 2%",
        needs=("inner products",),
        experts=(1, 2),
        needs_base=False,
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(_origin("zero"), _OVER),
    ),
    Method(
        "nuslerp",
        "spherical interpolation between two experts' deltas, by tensor, row or column",
        "θ₀ + [sin((1−t)Ω) τ_1 + sin(tΩ) τ_2] / sin Ω, t = w_2 / (w_1 + w_2), Ω the angle between τ_1 and τ_2",
        "merging.methods.spherical:nuslerp",
        _SLERP,
        _COST,
        "the arc down to the smallest angle, the line between (nearly) opposite deltas; `over: row` is mergekit's "
        "nuslerp_flatten: false, `over: column` with its nuslerp_row_wise: true",
        needs=("inner products",),
        experts=(1, 2),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(_origin("base"), _OVER),
    ),
    Method(
        "nlerp",
        "mean direction of the experts' deltas times their mean length",
        "θ₀ + Σ w_t ‖τ_t‖ · m / ‖m‖, m = Σ w_t τ_t / ‖τ_t‖, Σ w_t = 1",
        "merging.methods.spherical:nlerp",
        _AVERAGES,
        _COST,
        "what mergekit's multislerp gives: the tangent that it adds is 0; a delta of 0 counts in the length alone, "
        "opposite deltas that cancel give Σ w_t τ_t",
        needs=("inner products",),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(_origin("base"), _OVER),
        aliases=("multislerp",),
    ),
    Method(
        "karcher",
        "spherical interpolation between any number of deltas: their Fréchet mean on the sphere, at their mean length",
        "θ₀ + Σ w_t ‖τ_t‖ · argmin_m Σ w_t ∠(m, τ_t)², Σ w_t = 1",
        "merging.methods.spherical:karcher",
        _AVERAGES,
        _COST,
        "weighted and by Newton's method, in float64; mergekit's has `origin: zero`, equal weights and stops some 1e-5 "
        "before the mean; where a delta is opposite the others there is no mean: Σ w_t τ_t",
        needs=("inner products",),
        normalised=True,
        weight=weight(minimum=0.0),
        parameters=(
            _origin("base"),
            _OVER,
            Parameter(
                "iterations",
                "most steps toward the mean",
                "int",
                100,
                100,
                1,
                100,
                1,
                10_000,
                scope="study",
                searched=False,
            ),
            Parameter(
                "tol",
                "step, in radians, below which the mean is found",
                "float",
                1e-8,
                1e-8,
                1e-10,
                1e-4,
                0.0,
                1.0,
                log=True,
                scope="study",
                searched=False,
            ),
        ),
    ),
)
