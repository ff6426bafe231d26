"""Where a command acts, as the options of kubectl say it."""

from dataclasses import dataclass

__all__ = ["Place"]


@dataclass(frozen=True)
class Place:
    """Which cluster and namespace; empty strings mean what kubectl would take."""

    context: str = ""
    kubeconfig: str = ""
    namespace: str = ""
    debug: bool = False

    def over(self, other: "Place") -> "Place":
        """What is said here, else what was said there."""
        return Place(
            context=self.context or other.context,
            kubeconfig=self.kubeconfig or other.kubeconfig,
            namespace=self.namespace or other.namespace,
            debug=self.debug or other.debug,
        )

    @property
    def options(self) -> str:
        """The same place as options, for commands that a person is told to type."""
        said = {"--context": self.context, "--kubeconfig": self.kubeconfig, "--namespace": self.namespace}
        return "".join(f" {option} {value}" for option, value in said.items() if value)
