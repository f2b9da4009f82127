"""The Ray side of `simulation.py`, with the arguments of `simulation_sides.py`.

Ray starts while this process imports torch and reads data, as it does with `fedrad run --runtime
ray`: so nothing that imports torch may come before it.
"""

from fedrad.federation import cluster
from fedrad.federation.runtimes import Runtime, RuntimeName


def main() -> None:
    # Ray's processes import it, and know the networks.
    cluster._PRELOADED.append("workloads")
    with Runtime(RuntimeName.RAY, workers=2).started() as ray:
        import simulation_sides

        simulation_sides.main(ray)


if __name__ == "__main__":
    main()
