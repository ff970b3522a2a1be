"""Boxes around what moves at the event, whatever it is; no weights.

motion_detector  the detector, as the stage has it
video_motion     what moves in a frame, by its neighbours in the source and the clip's other events
bars             the picture inside the frame, without bars beside it
evidence         how strongly each pixel speaks for motion of its own, the camera's taken off
regions          candidate boxes in the evidence, and how each stands out
"""
