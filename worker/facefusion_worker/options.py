"""The classical engine's options, by FaceFusion 3.8's own names, types and ranges, and the names of those it does not follow.

Twelve more belong to the operator and are named nowhere: config_path, temp_path, jobs_path, source_paths, target_path, output_path,
execution_device_ids, execution_providers, execution_thread_count, download_providers, video_memory_strategy, log_level.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .engine import EngineError, Option, OptionType, Processor

_INTEGER, _NUMBER, _STRING = OptionType.OPTION_TYPE_INTEGER, OptionType.OPTION_TYPE_NUMBER, OptionType.OPTION_TYPE_STRING

PROCESSORS = (
    Processor("face_swapper", "puts the face of the source picture over faces of the target", needs_source_image=True),
    Processor("face_enhancer", "smooths, sharpens and evens out faces"),
    Processor("frame_enhancer", "doubles the size of the picture and brings out detail"),
    Processor("face_debugger", "draws what was found: boxes, landmarks, masks"),
)

SELECTOR_ORDERS = ("left-right", "right-left", "top-bottom", "bottom-top", "small-large", "large-small", "best-worst", "worst-best")
DEBUGGER_ITEMS = ("bounding-box", "face-landmark-5", "face-landmark-5/68", "face-landmark-68", "face-landmark-68/5", "face-mask")
VIDEO_PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
VIDEO_ENCODERS = ("libx264", "libx265", "libvpx-vp9")
AUDIO_ENCODERS = ("aac", "libmp3lame", "libopus", "libvorbis", "flac", "pcm_s16le")

OPTIONS = (
    Option(
        "processors",
        _STRING,
        "processors to run, in this order",
        list=True,
        choices=tuple(processor.name for processor in PROCESSORS),
        default=["face_swapper"],
    ),
    Option(
        "face_selector_mode",
        _STRING,
        "which faces of the target: all (many), the first in face_selector_order (one), or one person throughout (reference)",
        choices=("many", "one", "reference"),
        default="reference",
    ),
    Option("face_selector_order", _STRING, "the order in which faces count", choices=SELECTOR_ORDERS, default="large-small"),
    Option("reference_face_position", _INTEGER, "which face of the reference frame, in face_selector_order, from 0", minimum=0, default=0),
    Option(
        "reference_face_distance",
        _NUMBER,
        "how unlike the reference a face may be and still be taken for it",
        minimum=0,
        maximum=1,
        default=0.3,
    ),
    Option(
        "reference_frame_number",
        _INTEGER,
        "the frame that shows the reference face; from there on the first frame with a face is taken",
        minimum=0,
        default=0,
    ),
    Option("face_mask_blur", _NUMBER, "softness of the mask's border", minimum=0, maximum=1, default=0.3),
    Option(
        "face_mask_padding",
        _INTEGER,
        "percent cut from the mask at top, right, bottom and left; one to four numbers, as in CSS",
        list=True,
        minimum=0,
        maximum=100,
        default=[0, 0, 0, 0],
    ),
    Option("trim_frame_start", _INTEGER, "first frame of the target video to take, from 0", minimum=0),
    Option("trim_frame_end", _INTEGER, "frame of the target video before which to stop", minimum=0),
    Option("output_image_quality", _INTEGER, "quality of a jpg or webp result", minimum=0, maximum=100, default=80),
    Option("output_image_scale", _NUMBER, "size of the result against that of the processed picture", minimum=0.25, maximum=8, default=1.0),
    Option("output_audio_encoder", _STRING, "encoder for sound that cannot be copied as it is", choices=AUDIO_ENCODERS),
    Option("output_audio_quality", _INTEGER, "quality of sound that cannot be copied as it is", minimum=0, maximum=100, default=80),
    Option(
        "output_audio_volume", _INTEGER, "volume in percent of the target's; 0 leaves the sound out", minimum=0, maximum=100, default=100
    ),
    Option("output_video_encoder", _STRING, "video encoder; by default the one usual in the output format", choices=VIDEO_ENCODERS),
    Option("output_video_preset", _STRING, "speed against size of x264 and x265", choices=VIDEO_PRESETS, default="veryfast"),
    Option("output_video_quality", _INTEGER, "quality of the result; becomes crf as in FaceFusion", minimum=0, maximum=100, default=80),
    Option("output_video_scale", _NUMBER, "size of the result against that of the processed frame", minimum=0.25, maximum=8, default=1.0),
    Option("output_video_fps", _NUMBER, "frames per second of the result; by default the target's", minimum=1, maximum=120),
    Option(
        "face_swapper_weight",
        _NUMBER,
        "0.5 is the source's face in the target's light; below, the target shows through; above, the source keeps its own tone",
        minimum=0,
        maximum=1,
        default=0.5,
        processor="face_swapper",
    ),
    Option("face_enhancer_blend", _INTEGER, "share of the enhanced face", minimum=0, maximum=100, default=80, processor="face_enhancer"),
    Option("frame_enhancer_blend", _INTEGER, "share of the added detail", minimum=0, maximum=100, default=80, processor="frame_enhancer"),
    Option(
        "face_debugger_items",
        _STRING,
        "what to draw",
        list=True,
        choices=DEBUGGER_ITEMS,
        default=["face-landmark-5/68", "face-mask"],
        processor="face_debugger",
    ),
)

IGNORED_OPTIONS = (
    "face_detector_model",
    "face_detector_size",
    "face_detector_margin",
    "face_detector_angles",
    "face_detector_score",
    "face_landmarker_model",
    "face_landmarker_score",
    "face_selector_age_start",
    "face_selector_age_end",
    "face_selector_gender",
    "face_selector_race",
    "face_tracker_score",
    "face_occluder_model",
    "face_parser_model",
    "face_mask_types",
    "face_mask_areas",
    "face_mask_regions",
    "voice_extractor_model",
    "temp_frame_format",
    "temp_pixel_format",
    "target_frame_amount",
    "workflow_mode",
    "workflow_strategy",
    "age_modifier_model",
    "age_modifier_direction",
    "background_remover_model",
    "background_remover_fill_color",
    "background_remover_despill_color",
    "deep_swapper_model",
    "deep_swapper_morph",
    "expression_restorer_model",
    "expression_restorer_factor",
    "expression_restorer_areas",
    "face_editor_model",
    "face_editor_eyebrow_direction",
    "face_editor_eye_gaze_horizontal",
    "face_editor_eye_gaze_vertical",
    "face_editor_eye_open_ratio",
    "face_editor_lip_open_ratio",
    "face_editor_mouth_grim",
    "face_editor_mouth_pout",
    "face_editor_mouth_purse",
    "face_editor_mouth_smile",
    "face_editor_mouth_position_horizontal",
    "face_editor_mouth_position_vertical",
    "face_editor_head_pitch",
    "face_editor_head_yaw",
    "face_editor_head_roll",
    "face_enhancer_model",
    "face_enhancer_weight",
    "face_swapper_model",
    "face_swapper_pixel_boost",
    "frame_colorizer_model",
    "frame_colorizer_size",
    "frame_colorizer_blend",
    "frame_enhancer_model",
    "lip_syncer_model",
    "lip_syncer_weight",
)


def resolve(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Every option with its value, of its declared type. The service has checked them before; a caller without one is told here."""
    return {option.name: _value(option, parameters.get(option.name)) for option in OPTIONS}


def _value(option: Option, given: Any) -> Any:
    if given is None:
        return option.default
    if not option.list:
        return _single(option, given)
    values = given if isinstance(given, list | tuple) else [given]
    return [_single(option, value) for value in values]


def _single(option: Option, given: Any) -> Any:
    try:
        if option.type == _STRING:
            value = given
            fits = isinstance(value, str) and (not option.choices or value in option.choices)
        else:
            value = float(given)
            fits = not isinstance(given, bool) and (option.type == _NUMBER or value.is_integer())
            fits = fits and (option.minimum is None or value >= option.minimum) and (option.maximum is None or value <= option.maximum)
            if fits and option.type == _INTEGER:
                value = int(value)
    except (TypeError, ValueError, OverflowError):
        fits, value = False, None
    if not fits:
        raise EngineError("OPTION_INVALID", f"{option.name} cannot be {str(given)[:60]!r}.")
    return value
