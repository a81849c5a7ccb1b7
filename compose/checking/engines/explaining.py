"""A judgement in words: which rule of which policy decided, or which policies isolate."""

from schemas.verdict import Judgement, Reason


def explain(judgement: Judgement) -> str:
    """One line, without the verdict itself."""
    match judgement.reason:
        case Reason.RULE:
            return f"rule {judgement.rule} of {judgement.policy} allows it"
        case Reason.NO_RULE:
            return f"no rule allows it; isolated by {', '.join(judgement.isolating)}"
        case Reason.VIRTUAL:
            return f"not every endpoint behind the Service is allowed; isolated by {', '.join(judgement.isolating)}"
        case Reason.NOT_ISOLATED:
            return "no policy isolates the Pods in this direction"
        case Reason.VIRTUAL_ALLOWED:
            return "every endpoint behind the Service is allowed"
        case Reason.OWN_NODE:
            return "a Pod's own node may always connect"
        case _:
            return judgement.reason.value
