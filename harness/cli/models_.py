"""smlm-zoo models"""

from dataclasses import dataclass
from typing import Annotated

import tyro

from ._shared import Plugins, load_plugins, print_table


@dataclass(frozen=True)
class Models:
    """List the models: size, work, field of view, loss, shipped weights."""

    pattern: Annotated[str, tyro.conf.Positional] = "*"
    """Names to list, with wildcards, e.g. "*_storm"."""
    plugin: Plugins = ()
    """Python files that register further models."""

    def run(self) -> int:
        import zoo

        load_plugins(self.plugin)
        names = zoo.list_models(self.pattern)
        if not names:
            raise ValueError(f"no model matches {self.pattern!r}; there are: {', '.join(zoo.list_models())}")
        shipped = zoo.list_weights()
        rows = []
        for name in names:
            spec = zoo.get_spec(name)
            macs = zoo.count_macs(zoo.create_model(name), 64, 64)
            rows.append(
                {
                    "model": name,
                    "parameters": f"{spec.parameters:,}" if spec.parameters else "",
                    "GMAC per 64x64 frame": f"{macs.published / 1e9:.2f}",
                    "done here": f"{macs.done / 1e9:.2f}",
                    "field of view (px)": f"{spec.receptive_field_px:.1f}" if spec.receptive_field_px else "",
                    "loss": spec.loss,
                    "weights": ", ".join(tag.split(".", 1)[1] for tag in shipped if tag.split(".")[0] == name) or "-",
                    "variants": ", ".join(spec.variants) or "-",
                    "what it is": spec.summary,
                }
            )
        print_table(rows)
        return 0
