"""Tracks: the boxes of one thing in a clip's frames.

linkers        what carries boxes from frame to frame: the interface, and where one is chosen
flow_linker    along the optical flow
carrying       how: a grid of points in each box, there and back
sam2_linker    by SAM 2.1's memory of what the boxes show
clip_pictures  the pictures between a clip's frames
tracks         one to one: from boxes carried onto others to tracks
"""
