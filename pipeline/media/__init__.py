"""The only code that opens media, through PyAV, whose wheel carries the codecs.

    container  open one local file with everything hostile refused; errors with their kinds
    timeline   when each frame is shown, from one pass over the packets, nothing decoded
    probe      the facts a filter asks for, and whether the file is whole
    sound      energy of the waveform on a grid of hops: RMS per second, short-time RMS
    even_sound long sound whose frames are even, decoded by libav alone
    waveform   the waveform of a span at a model's rate
    sound_file the whole sound of a file, with pictures or without
    picture    decoded frames, exactly those of a sequential decode, at the cost of a few
    disposable pictures no other refers to, which are passed over on the way to a wanted one
    cut        a lossless cut with an edit list
    clip       a clip's own file: cut where that shows what the source shows, else encoded
    encode     pictures as a small MP4, silent or with sound
    clip_cache a clip's small copy, as training reads it

Time 0 is everywhere the first presented frame of the video. Times are exact fractions until they
are written into a record.
"""

from pipeline.media.clip import BROWSER, TICK_S, Made, MadeClip, make_clip, shown_before
from pipeline.media.container import Media
from pipeline.media.encode import encode, encode_film
from pipeline.media.picture import Picture, decode_pictures, frames_between
from pipeline.media.probe import PROBE_VERSION, MediaFacts, probe
from pipeline.media.sound import Channels, SoundEnergy, SoundTrack
from pipeline.media.sound_file import FileSound, read_sound
from pipeline.media.timeline import Timeline, exact, read_timeline
from pipeline.media.waveform import waveform

__all__ = [
    "BROWSER",
    "PROBE_VERSION",
    "TICK_S",
    "Channels",
    "FileSound",
    "Made",
    "MadeClip",
    "Media",
    "MediaFacts",
    "Picture",
    "SoundEnergy",
    "SoundTrack",
    "Timeline",
    "decode_pictures",
    "encode",
    "encode_film",
    "exact",
    "frames_between",
    "make_clip",
    "probe",
    "read_sound",
    "read_timeline",
    "shown_before",
    "waveform",
]
