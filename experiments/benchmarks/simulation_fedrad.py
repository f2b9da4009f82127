"""fedrad's sides of `simulation.py`, begun as `fedrad run` begins; arguments of `simulation_sides`.

Ray starts while this process imports torch and reads data, so nothing that imports torch may come
before it.
"""

import sys

from fedrad.core.gc_tuning import raise_gc_threshold


def main() -> None:
    raise_gc_threshold()
    from fedrad.runtimes import Runtime, RuntimeName
    from fedrad.simulation.ray import cluster

    # Ray's processes import it, and know the networks.
    cluster._PRELOADED.append("workloads")
    with Runtime(RuntimeName(sys.argv[1]), workers=2).started() as began:
        import simulation_sides

        simulation_sides.main(began)


if __name__ == "__main__":
    main()
