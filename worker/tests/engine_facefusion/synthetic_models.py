"""Stand-ins for FaceFusion's models: the right inputs and outputs, nothing learned in them, the same bytes every time.

Made for these tests from arithmetic alone; `producer_name` says so, and the engine refuses them anywhere else. How they behave:

- detectors see one face in the middle of every picture, and none where the picture is green;
- the content models call a magenta picture unfit, and nothing else; how their three words become one is FaceFusion's own;
- swappers mix the target with one flat colour that the source decides; enhancers brighten; the others each leave a trace that can be seen;
- a few are made to go wrong: see `ODD`.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

PRODUCER = "facefusion-jobs synthetic"
# One model each for what can go wrong, all choices of `face_swapper_model`.
ODD = {
    "slow": "ghost_1_256",  # one inference takes very long
    "greedy": "ghost_2_256",  # one inference asks for more memory than there is
    "broken": "ghost_3_256",  # matches its checksum, but is no model
    "absent": "blendswap_256",
    "damaged": "simswap_256",  # does not match its checksum
}

_CANVAS = 640
# Sizes and places in units of the shorter side, from the middle of the face.
_BOX = (0.40, 0.50)
_EYES, _NOSE, _MOUTH = (0.079, -0.081), (0.0, 0.011), (0.07, 0.083)
_FIVE = np.array([(-_EYES[0], _EYES[1]), (_EYES[0], _EYES[1]), _NOSE, (-_MOUTH[0], _MOUTH[1]), (_MOUTH[0], _MOUTH[1])], np.float32)
_SEED = np.random.default_rng(20_260_805)


def _arc(centre: tuple[float, float], radii: tuple[float, float], count: int, turns: tuple[float, float]) -> np.ndarray:
    angles = np.linspace(turns[0] * np.pi, turns[1] * np.pi, count)
    return np.stack([centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)], 1)


def _ring(centre: tuple[float, float], radii: tuple[float, float], count: int) -> np.ndarray:
    return _arc(centre, radii, count + 1, (1, 3))[:count]


def _sixty_eight() -> np.ndarray:
    """A plain face in the usual order: jaw, brows, nose, eyes, mouth."""
    brow = _arc((-0.085, -0.11), (0.055, 0.03), 5, (1, 2))
    parts = [
        _arc((0, -0.06), (0.18, 0.25), 17, (1, 0)),
        brow,
        brow[::-1] * (-1, 1),
        np.stack([np.zeros(4), np.linspace(-0.07, _NOSE[1], 4)], 1),
        np.stack([np.linspace(-0.03, 0.03, 5), np.full(5, 0.03)], 1),
        _ring((-_EYES[0], _EYES[1]), (0.024, 0.01), 6),
        _ring((_EYES[0], _EYES[1]), (0.024, 0.01), 6),
        _ring((0, _MOUTH[1]), (_MOUTH[0], 0.03), 12),
        _ring((0, _MOUTH[1]), (0.045, 0.012), 8),
    ]
    return np.concatenate(parts).astype(np.float32)


class Folder:
    """Where the models go, each with its checksum beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str, data: bytes, checksum: int | None = None, suffix: str = ".onnx") -> None:
        file = self.path / (name + suffix)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.with_name(file.name.removesuffix(suffix) + ".hash").write_text(
            format(zlib.crc32(data) if checksum is None else checksum, "08x")
        )

    def model(self, name: str, text: str, constants: Mapping[str, np.ndarray] | None = None, suffix: str = ".onnx") -> None:
        """`text` is a graph in ONNX's own notation; `constants` are added to it, in order, last of all."""
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17], producer_name: "{PRODUCER}">\n{text}')
        for key, value in (constants or {}).items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value, order="C"), key))
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.SetInParent()  # a scalar has a shape too: an empty one
        onnx.checker.check_model(model)
        self.write(name, model.SerializeToString(), suffix=suffix)


def _float(values: object) -> np.ndarray:
    return np.asarray(values, np.float32)


def build(folder: Path) -> None:
    out = Folder(folder)
    _content(out)
    _detectors(out)
    _faces(out)
    _swappers(out)
    _restorers(out)
    _frames(out)
    _backgrounds(out)
    _portraits(out)
    _sound(out)


def _content(out: Folder) -> None:
    # Back to 0..1, then how much red and blue there is beyond green.
    shared = """
      plain = Add(scaled, mean)
      means = ReduceMean<axes=[0,2,3], keepdims=0>(plain)
      red, green, blue = Split<axis=0>(means)
      both = Min(red, blue)
      five = Constant<value_float=5.0>()
      much = Mul(green, five)
      over = Sub(both, much)
      limit = Constant<value_float=0.25>()
      hit = Greater(over, limit)
      unfit = Cast<to=1>(hit)
      one = Constant<value_float=1.0>()
      fit = Sub(one, unfit)
    """
    words = {
        "nsfw_1": (
            "[1,5,1]",
            "zeros = ConstantOfShape(shape)\n five_ = Concat<axis=0>(zeros, unfit)\n output = Reshape(five_, whole)",
            640,
        ),
        "nsfw_2": ("[1,2]", "two = Concat<axis=0>(unfit, fit)\n output = Reshape(two, whole)", 384),
        "nsfw_3": (
            "[1,4]",
            "loud = Constant<value_float=20.0>()\n hot = Mul(unfit, loud)\n cold = Mul(fit, loud)\n"
            " four = Concat<axis=0>(cold, cold, hot, hot)\n output = Reshape(four, whole)",
            448,
        ),
    }
    levels = {
        "nsfw_1": (0.0, 1.0),
        "nsfw_2": (0.5, 0.5),
        "nsfw_3": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    }
    for name, (shape, ending, size) in words.items():
        mean, deviation = levels[name]
        text = f"content (float[1,3,{size},{size}] input) => (float{shape} output) {{ scaled = Mul(input, deviation) {shared} {ending} }}"
        constants = {
            "mean": np.broadcast_to(_float(mean).reshape(-1, 1, 1), (3, 1, 1)),
            "deviation": np.broadcast_to(_float(deviation).reshape(-1, 1, 1), (3, 1, 1)),
            "whole": np.array([int(n) for n in shape.strip("[]").split(",")], np.int64),
        }
        if name == "nsfw_1":
            constants["shape"] = np.array([4], np.int64)
        out.model(name, text, constants)


def _detectors(out: Folder) -> None:
    # The picture lies at the canvas' top left, on black: how far it reaches tells its middle.
    rows = ["cx", "cy", "width", "height", "score"]
    steps = ["width = Mul(side, box_width)", "height = Mul(side, box_height)"]
    for number, _ in enumerate(_FIVE):
        steps.append(f"dx{number} = Mul(side, px{number})\n x{number} = Add(cx, dx{number})")
        steps.append(f"dy{number} = Mul(side, py{number})\n y{number} = Add(cy, dy{number})")
        rows += [f"x{number}", f"y{number}", "score"]
    text = f"""
    detector (float[1,3,640,640] input) => (float[1,20,8400] output) {{
      bright = ReduceMax<axes=[0,1], keepdims=0>(input)
      dark = Constant<value_floats=[0.02]>()
      lit = Greater(bright, dark)
      seen = Cast<to=1>(lit)
      columns = ReduceMax<axes=[0], keepdims=0>(seen)
      lines = ReduceMax<axes=[1], keepdims=0>(seen)
      far_x = Mul(columns, ramp)
      far_y = Mul(lines, ramp)
      wide = ReduceMax<axes=[0], keepdims=1>(far_x)
      high = ReduceMax<axes=[0], keepdims=1>(far_y)
      side = Min(wide, high)
      half = Constant<value_floats=[0.5]>()
      cx = Mul(wide, half)
      middle = Constant<value_floats=[0.47]>()
      cy = Mul(high, middle)
      means = ReduceMean<axes=[0,2,3], keepdims=0>(input)
      first, green, last = Split<axis=0>(means)
      other = Max(first, last)
      five = Constant<value_floats=[5.0]>()
      much = Mul(other, five)
      over = Sub(green, much)
      limit = Constant<value_floats=[0.01]>()
      none = Greater(over, limit)
      hidden = Cast<to=1>(none)
      one = Constant<value_floats=[1.0]>()
      there = Sub(one, hidden)
      sure = Constant<value_floats=[0.95]>()
      score = Mul(there, sure)
      {" ".join(steps)}
      column = Concat<axis=0>({", ".join(rows)})
      face = Reshape(column, face_shape)
      before = ConstantOfShape(before_shape)
      after = ConstantOfShape(after_shape)
      output = Concat<axis=2>(before, face, after)
    }}"""
    constants: dict[str, np.ndarray] = {
        "ramp": np.arange(1, _CANVAS + 1, dtype=np.float32),
        "box_width": _float([_BOX[0]]),
        "box_height": _float([_BOX[1]]),
        "face_shape": np.array([1, 20, 1], np.int64),
        # A hit in the first place is one that FaceFusion does not take.
        "before_shape": np.array([1, 20, 1000], np.int64),
        "after_shape": np.array([1, 20, 7399], np.int64),
    }
    for number, (x, y) in enumerate(_FIVE):
        constants |= {f"px{number}": _float([x]), f"py{number}": _float([y])}
    out.model("yoloface_8n", text, constants)
    for name in ("retinaface_10g", "scrfd_2.5g", "yunet_2023_mar"):
        _anchored(out, name)


def _anchored(out: Folder, name: str) -> None:
    """One face in the middle of 640x360 at the canvas' top left, whatever the picture shows."""
    single = name.startswith("yunet")
    middle, side = np.array([320.0, 169.2]), 360.0
    low, high = middle - side * np.array(_BOX) / 2, middle + side * np.array(_BOX) / 2
    columns = {"score": 1, "obj": 1, "box": 4, "kps": 10} if single else {"score": 1, "box": 4, "kps": 10}
    outputs, constants, steps = (
        [],
        {},
        ["nothing = Constant<value_float=0.0>()", "sum = ReduceMean<keepdims=0>(input)", "zero = Mul(sum, nothing)"],
    )
    for key, width in columns.items():
        for stride in (8, 16, 32):
            cells = _CANVAS // stride
            table = np.zeros((cells * cells * (1 if single else 2), width), np.float32)
            if stride == 32:
                cell = middle // stride
                row = int(cell[1] * cells + cell[0]) * (1 if single else 2)
                anchor = cell * stride
                points = ((_FIVE * side + middle - anchor) / stride).ravel()
                if single:
                    box = [*((middle - anchor) / stride), *np.log(side * np.array(_BOX) / stride)]
                else:
                    box = [*((anchor - low) / stride), *((high - anchor) / stride)]
                table[row] = {"score": [0.95], "obj": [1.0], "box": box, "kps": points}[key]
            table = table[None] if single else table
            constants[f"{key}{stride}"] = table
            outputs.append(f"float[{','.join(map(str, table.shape))}] {key}_{stride}")
            steps.append(f"{key}_{stride} = Add({key}{stride}, zero)")
    out.model(name, f"detector (float[1,3,640,640] input) => ({', '.join(outputs)}) {{ {' '.join(steps)} }}", constants)


def _constant(out: Folder, name: str, inputs: str, outputs: Mapping[str, np.ndarray], first: str = "input") -> None:
    """Always the same answer, formally made of the input."""
    types = {np.dtype(np.float32): ("float", 1), np.dtype(np.int64): ("int64", 7)}
    steps = ["nothing = Constant<value_float=0.0>()", f"sum = ReduceMean<keepdims=0>({first})", "zero = Mul(sum, nothing)"]
    declared = []
    for key, value in outputs.items():
        kind, number = types[value.dtype]
        steps.append(f"zero_{key} = Cast<to={number}>(zero)\n {key} = Add(value_{key}, zero_{key})")
        declared.append(f"{kind}[{','.join(map(str, value.shape))}] {key}")
    out.model(
        name,
        f"fixed ({inputs}) => ({', '.join(declared)}) {{ {' '.join(steps)} }}",
        {f"value_{key}": value for key, value in outputs.items()},
    )


def _faces(out: Folder) -> None:
    points = _sixty_eight()
    # The crop shows the face's box 195 of its 256 pixels long, and answers in 64ths of it.
    crop = points / max(_BOX) * 195 / 4 + 32
    _constant(
        out,
        "2dfan4",
        "float[1,3,256,256] input",
        {"landmarks": _float(np.concatenate([crop, np.ones((68, 1))], 1)[None]), "heatmaps": np.full((1, 68, 64, 64), 0.9, np.float32)},
    )
    _constant(out, "peppa_wutz", "float[1,3,256,256] input", {"output": _float(np.concatenate([crop, np.full((68, 1), 0.95)], 1)[None])})
    template = _float([(0.377, 0.469), (0.623, 0.469), (0.501, 0.613), (0.393, 0.725), (0.612, 0.725)])
    fit = np.linalg.lstsq(np.concatenate([_FIVE, np.ones((5, 1))], 1), template, rcond=None)[0]
    _constant(out, "fan_68_5", "float[1,5,2] input", {"output": _float((np.concatenate([points, np.ones((68, 1))], 1) @ fit)[None])})
    out.model(
        "arcface_w600k_r50",
        """identity (float[1,3,112,112] input) => (float[1,512] output) {
          coarse = AveragePool<kernel_shape=[28,28], strides=[28,28]>(input)
          flat = Flatten(coarse)
          own = MatMul(flat, weights)
          output = Add(own, common)
        }""",
        # Mostly alike, so that one face is the reference of another; still, two pictures have two colours.
        {"weights": _float(_SEED.normal(0, 0.06, (48, 512))), "common": _float(_SEED.normal(0, 1, (1, 512)))},
    )
    number = np.array([4], np.int64)
    _constant(out, "fairface", "float[1,3,224,224] input", {"race_id": number * 0, "gender_id": number // 4, "age_id": number})
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    oval = _float(x**2 / 0.7 + y**2 / 0.9 < 1)
    for name in ("xseg_1", "xseg_2", "xseg_3"):
        _constant(out, name, "float[1,256,256,3] input", {"output": oval[None, :, :, None]})
    classes = np.zeros((1, 19, 512, 512), np.float32)
    classes[0, 1] = np.kron(oval, np.ones((2, 2)))
    classes[0, 0] = 1 - classes[0, 1]
    for name in ("bisenet_resnet_18", "bisenet_resnet_34"):
        _constant(out, name, "float[1,3,512,512] input", {"output": classes})


def _swap(
    out: Folder, name: str, size: int, signed: bool, source: str, before: str, steps: str = "", last: Mapping[str, np.ndarray] | None = None
) -> None:
    """Half the target, half one colour that the source decides. `before` makes three numbers, `three`, of the source."""
    level = (
        "two = Constant<value_float=2.0>()\n one = Constant<value_float=1.0>()\n wide = Mul(colour, two)\n tone = Sub(wide, one)"
        if signed
        else "tone = Identity(colour)"
    )
    text = f"""swapper (float[1,3,{size},{size}] target, float{source} source) => (float[1,3,{size},{size}] output) {{
      {before}
      bounded = Sigmoid(three)
      colour = Reshape(bounded, colour_shape)
      {level}
      half = Constant<value_float=0.5>()
      kept = Mul(target, half)
      given = Mul(tone, half)
      mixed = Add(kept, given)
      {steps or "output = Identity(mixed)"}
    }}"""
    constants = {"colour_shape": np.array([1, 3, 1, 1], np.int64)}
    if "weights" in before:
        constants["weights"] = _float(_SEED.normal(0, 1.5, (512, 3)))
    out.model(name, text, constants | dict(last or {}))


_FROM_EMBEDDING = "three = MatMul(source, weights)"
_FROM_PICTURE = """means = ReduceMean<axes=[2,3], keepdims=0>(source)
      four = Constant<value_float=4.0>()
      grown = Mul(means, four)
      less = Constant<value_float=2.0>()
      three = Sub(grown, less)"""


def _swappers(out: Folder) -> None:
    for letter in "abc":
        _swap(out, f"hyperswap_1{letter}_256", 256, True, "[1,512]", _FROM_EMBEDDING)
    for name in ("inswapper_128", "inswapper_128_fp16"):
        # FaceFusion takes the last of the constants for the map of embeddings.
        _swap(
            out,
            name,
            128,
            False,
            "[1,512]",
            _FROM_EMBEDDING,
            """sum = ReduceMean<keepdims=0>(emap)
            nothing = Constant<value_float=0.0>()
            zero = Mul(sum, nothing)
            output = Add(mixed, zero)""",
            {"emap": np.eye(512, dtype=np.float32)},
        )
    _swap(out, "hififace_unofficial_256", 256, True, "[1,512]", _FROM_EMBEDDING)
    _swap(out, "simswap_unofficial_512", 512, False, "[1,512]", _FROM_EMBEDDING)
    _swap(out, "uniface_256", 256, True, "[1,3,256,256]", _FROM_PICTURE)
    for name in ("ghost", "hififace", "simswap"):
        out.model(f"crossface_{name}", "converter (float[1,512] input) => (float[1,512] output) { output = Identity(input) }")

    square = np.eye(256, dtype=np.float32) * 0.999
    _swap(
        out,
        ODD["slow"],
        256,
        True,
        "[1,512]",
        _FROM_EMBEDDING,
        """more = Cast<to=9>(yes)
        output = Loop<body = turn (int64 i, bool go, float[1,3,256,256] state) => (bool on, float[1,3,256,256] next) {
          on = Identity(go)
          next = MatMul(state, square)
        }>(turns, more, mixed)""",
        {"turns": np.array(200_000, np.int64), "yes": np.array(1, np.int64), "square": square},
    )
    _swap(
        out,
        ODD["greedy"],
        256,
        True,
        "[1,512]",
        _FROM_EMBEDDING,
        """grid = Expand(mixed, vast)
        sum = ReduceMean<keepdims=0>(grid)
        output = Add(mixed, sum)""",
        {"vast": np.array([1 << 20, 3, 256, 256], np.int64)},
    )
    out.write(ODD["broken"], b"this is no model, though its checksum is right")
    _swap(out, ODD["damaged"], 256, False, "[1,512]", _FROM_EMBEDDING)
    (out.path / f"{ODD['damaged']}.hash").write_text("00000000")
    # As the real ones: two masks of the face, and the face; the size is the picture's.
    y, x = np.mgrid[-1:1:224j, -1:1:224j]
    out.model(
        "iperov/elon_musk_224",
        """deep (float[1,224,224,3] in_face, float[1] morph_value)
          => (float[1,224,224,1] mask, float[1,224,224,3] face, float[1,224,224,1] other) {
          nothing = Constant<value_float=0.0>()
          sum = ReduceMean<keepdims=0>(in_face)
          zero = Mul(sum, nothing)
          mask = Add(oval, zero)
          other = Add(oval, zero)
          tint = Mul(in_face, colour)
          share = Mul(morph_value, fifth)
          face = Add(tint, share)
        }""",
        {"oval": _float(x**2 / 0.7 + y**2 / 0.9 < 1)[None, :, :, None], "colour": _float([0.5, 0.8, 0.5]), "fifth": _float([0.2])},
        suffix=".dfm",
    )
    _rename_inputs(out.path / "iperov" / "elon_musk_224.dfm", {"in_face": "in_face:0", "morph_value": "morph_value:0"})


def _rename_inputs(path: Path, names: Mapping[str, str]) -> None:
    """The notation takes no colon in a name; these models have one."""
    model = onnx.load(str(path))
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = names.get(name, name)
    for value in model.graph.input:
        value.name = names.get(value.name, value.name)
    data = model.SerializeToString()
    path.write_bytes(data)
    path.with_suffix(".hash").write_text(format(zlib.crc32(data), "08x"))


def _restorers(out: Folder) -> None:
    sizes = {"gfpgan_1.2": 512, "gfpgan_1.3": 512, "gfpgan_1.4": 512, "restoreformer_plus_plus": 512}
    sizes |= {f"gpen_bfr_{size}": size for size in (256, 512, 1024, 2048)}
    brighter = "most = Constant<value_float=0.9>()\n dim = Mul(input, most)\n little = Constant<value_float=0.08>()"
    for name, size in sizes.items():
        out.model(
            name,
            f"restorer (float[1,3,{size},{size}] input) => (float[1,3,{size},{size}] output) {{ {brighter} output = Add(dim, little) }}",
        )
    out.model(
        "codeformer",
        f"""restorer (float[1,3,512,512] input, double[1] weight) => (float[1,3,512,512] output) {{ {brighter}
          bright = Add(dim, little)
          share = Cast<to=1>(weight)
          part = Constant<value_float=0.05>()
          more = Mul(share, part)
          output = Add(bright, more)
        }}""",
    )
    out.model(
        "fran",
        """age (float[1,3,1024,1024] target, float[2] direction) => (float[1,3,1024,1024] output) {
          mean = ReduceMean<keepdims=0>(direction)
          part = Constant<value_float=0.05>()
          shade = Mul(mean, part)
          output = Sub(target, shade)
        }""",
    )
    out.model(
        "styleganex_age",
        """age (float[1,3,256,256] target, float[1,3,384,384] target_with_background, float direction) => (float[1,3,384,384] output) {
          part = Constant<value_float=0.05>()
          shade = Mul(direction, part)
          sum = ReduceMean<keepdims=0>(target)
          nothing = Constant<value_float=0.0>()
          zero = Mul(sum, nothing)
          darker = Sub(target_with_background, shade)
          output = Add(darker, zero)
        }""",
    )


def _frames(out: Folder) -> None:
    names = (
        "clear_reality_x4",
        "face_dat_x4",
        "nomos8k_sc_x4",
        "real_esrgan_x2",
        "real_esrgan_x2_fp16",
        "real_esrgan_x4",
        "real_esrgan_x4_fp16",
        "real_esrgan_x8",
        "real_esrgan_x8_fp16",
        "real_hatgan_x4",
        "real_web_photo_x4",
        "realistic_rescaler_x4",
        "remacri_x4",
        "siax_x4",
        "span_kendata_x4",
        "swin2_sr_x4",
        "tghq_face_x8",
        "ultra_sharp_x4",
        "ultra_sharp_2_x4",
    )
    for name in names:
        factor = next(factor for factor in (2, 4, 8) if f"_x{factor}" in name)
        out.model(
            name,
            """larger (float[1,3,h,w] input) => (float[1,3,hh,ww] output) {
              output = Resize<mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric">(input, , factors)
            }""",
            {"factors": _float([1, 1, factor, factor])},
        )
    for name in ("ddcolor", "ddcolor_artistic"):
        out.model(
            name,
            """colours (float[1,3,h,w] input) => (float[1,2,h,w] output) {
              grey = ReduceMean<axes=[1], keepdims=1>(input)
              output = Mul(grey, tints)
            }""",
            {"tints": _float([20, 30]).reshape(1, 2, 1, 1)},
        )
    for name in ("deoldify", "deoldify_artistic", "deoldify_stable"):
        out.model(
            name,
            "colours (float[1,3,h,w] input) => (float[1,3,h,w] output) { output = Mul(input, tint) }",
            {"tint": _float([1, 0.9, 0.7]).reshape(1, 3, 1, 1)},
        )


def _backgrounds(out: Folder) -> None:
    for name, size, classes in (("modnet", 512, 1), ("u2net_general", 320, 1), ("u2net_cloth", 768, 4), ("isnet_general", 1024, 1)):
        y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
        front = _float(x**2 / 0.5 + y**2 / 0.9 < 1)
        table = np.stack([1 - front, front, front * 0, front * 0]) if classes == 4 else front[None]
        _constant(out, name, f"float[1,3,{size},{size}] input", {"output": table[None]})


def _portraits(out: Folder) -> None:
    # The picture itself travels in the first channels of the volume.
    out.model(
        "live_portrait_feature_extractor",
        """features (float[1,3,256,256] input) => (float[1,32,16,64,64] output) {
          volume = Reshape(input, volume_shape)
          rest = ConstantOfShape(rest_shape)
          output = Concat<axis=1>(volume, rest)
        }""",
        {"volume_shape": np.array([1, 3, 16, 64, 64], np.int64), "rest_shape": np.array([1, 29, 16, 64, 64], np.int64)},
    )
    zero = np.zeros((), np.float32)
    _constant(
        out,
        "live_portrait_motion_extractor",
        "float[1,3,256,256] input",
        {
            "pitch": zero,
            "yaw": zero,
            "roll": zero,
            "scale": _float([[1]]),
            "translation": np.zeros((1, 3), np.float32),
            "expression": np.zeros((1, 21, 3), np.float32),
            "motion_points": _float(_SEED.normal(0, 0.1, (1, 21, 3))),
        },
    )
    for name, width in (("eye", 66), ("lip", 65)):
        out.model(
            f"live_portrait_{name}_retargeter",
            f"""retarget (float[1,{width}] input) => (float[1,63] output) {{
              part = Slice(input, start, stop, axis)
              tenth = Constant<value_float=0.1>()
              output = Mul(part, tenth)
            }}""",
            {"start": np.array([0], np.int64), "stop": np.array([63], np.int64), "axis": np.array([1], np.int64)},
        )
    out.model(
        "live_portrait_stitcher",
        """stitch (float[1,21,3] source, float[1,21,3] target) => (float[1,21,3] output) {
          nothing = Constant<value_float=0.0>()
          zero = Mul(source, nothing)
          output = Add(source, zero)
          unused = Identity(target)
        }""",
    )
    out.model(
        "live_portrait_generator",
        """generate (float[1,32,16,64,64] feature_volume, float[1,21,3] source, float[1,21,3] target) => (float[1,3,512,512] output) {
          volume = Slice(feature_volume, start, stop, axis)
          picture = Reshape(volume, picture_shape)
          moved = Sub(source, target)
          shade = ReduceMean<keepdims=0>(moved)
          shaded = Add(picture, shade)
          output = Resize<mode="linear">(shaded, , factors)
        }""",
        {
            "start": np.array([0], np.int64),
            "stop": np.array([3], np.int64),
            "axis": np.array([1], np.int64),
            "picture_shape": np.array([1, 3, 256, 256], np.int64),
            "factors": _float([1, 1, 2, 2]),
        },
    )


def _sound(out: Folder) -> None:
    for name in ("wav2lip_96", "wav2lip_gan_96"):
        # Six channels: the masked face, and the face. The sound brightens it.
        out.model(
            name,
            """lips (float[1,1,80,16] source, float[1,6,96,96] target) => (float[1,3,96,96] output) {
              face = Slice(target, start, stop, axis)
              loud = ReduceMean<keepdims=0>(source)
              bounded = Sigmoid(loud)
              fifth = Constant<value_float=0.2>()
              light = Mul(bounded, fifth)
              output = Add(face, light)
            }""",
            {"start": np.array([3], np.int64), "stop": np.array([6], np.int64), "axis": np.array([1], np.int64)},
        )
    for name in ("kim_vocal_1", "kim_vocal_2", "uvr_mdxnet"):
        out.model(
            name,
            """voice (float[b,4,3072,256] input) => (float[b,4,3072,256] output) {
              most = Constant<value_float=0.8>()
              output = Mul(input, most)
            }""",
        )


if __name__ == "__main__":
    build(Path(sys.argv[1]))
