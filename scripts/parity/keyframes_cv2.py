"""Benchmarks key-frame selection against OpenCV (accuracy and speed) and bare FFmpeg decoding (speed).

Usage: keyframes_cv2.py BINARY CLIP... [--pairs 200] [--features 1000] [--rounds 5] [--seed 1]

Accuracy: frames of the clips are warped by known homographies (translation, rotation, zoom, perspective,
all combined; overlaps from 1 down to 0.3), uncovered areas are filled from another clip, and noise, blur,
exposure changes or JPEG artifacts are added. `BINARY keyframes --pair A B --json` and OpenCV (ORB,
cross-checked brute-force matching, RANSAC at 5 pixels) estimate the homography from B to A. The error of a
pair is the mean distance of its four projected corners from the ground truth; a pair fails without a
homography or with an error above 10 pixels, and failures count in the median.

Speed: the minimum over interleaved rounds of FFmpeg decoding the clip to null, `BINARY keyframes --json`,
and the same selection by OpenCV. CPU time is user and system time including child processes; OpenCV's
excludes its imports.

Needs OpenCV, NumPy and FFmpeg; no clip is part of the project.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

FAILURE_PX = 10.0
RANSAC_PX = 5.0
MOTIONS = ["shift", "rotation", "zoom", "perspective", "all"]
SPOILS = ["clean", "noise", "blur", "exposure", "jpeg"]


def corners(width, height):
    return np.float64([[0, 0], [width, 0], [width, height], [0, height]]).reshape(-1, 1, 2)


def moved(homography, width, height):
    return cv2.perspectiveTransform(corners(width, height), np.float64(homography)).reshape(4, 2)


def overlap(homography, width, height):
    """Fraction of the frame that the projected frame covers."""
    quad = np.float32(moved(homography, width, height))
    area, _ = cv2.intersectConvexConvex(np.float32(corners(width, height).reshape(4, 2)), quad)
    return area / (width * height)


# --- accuracy ---------------------------------------------------------------------------------------


def draw_homography(random, motion, width, height):
    """A homography from B to A with an overlap between 0.3 and 1."""
    while True:
        turn, zoom, tilt, way = 0.0, 1.0, (0.0, 0.0), 0.15 * random.random()
        if motion in ("rotation", "all"):
            turn = np.deg2rad(random.uniform(-60, 60))
        if motion in ("zoom", "all"):
            zoom = np.exp(random.uniform(np.log(0.6), np.log(1.6)))
        if motion in ("perspective", "all"):
            tilt = random.uniform(-0.35, 0.35, 2) / (width, height)
        if motion in ("shift", "all"):
            way = random.uniform(0, 0.75)
        angle = random.uniform(0, 2 * np.pi)
        shift = way * width * np.cos(angle), way * height * np.sin(angle)
        middle = np.float64([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
        cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
        view = np.float64([[cos, -sin, shift[0]], [sin, cos, shift[1]], [tilt[0], tilt[1], 1]])
        homography = np.linalg.inv(middle) @ view @ middle
        depths = corners(width, height).reshape(4, 2) @ homography[2, :2] + homography[2, 2]
        if depths.min() > 0.3 and 0.3 <= overlap(homography, width, height) <= 1:
            return homography / homography[2, 2]


def spoil(random, frame, kind):
    if kind == "noise":
        return np.clip(frame + random.normal(0, 10, frame.shape), 0, 255).astype(np.uint8)
    if kind == "blur":
        return cv2.GaussianBlur(frame, (0, 0), 1.5)
    if kind == "exposure":
        gain, gamma = random.uniform(0.5, 1.4), random.uniform(0.7, 1.4)
        return np.clip(255 * gain * (frame / 255.0) ** gamma, 0, 255).astype(np.uint8)
    if kind == "jpeg":
        return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 25])[1], cv2.IMREAD_GRAYSCALE)
    return frame


def gray_frames(clip, step=7):
    video, frames = cv2.VideoCapture(clip), []
    while True:
        ok, frame = video.read()
        if not ok:
            return frames[::step]
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))


def draw_pairs(clips, count, seed):
    """(motion, degradation, A, B, homography from B to A)."""
    random = np.random.default_rng(seed)
    footage = [gray_frames(clip) for clip in clips]
    for i in range(count):
        motion, kind = MOTIONS[i % 5], SPOILS[i // 5 % 5]
        frames = footage[i // 25 % len(footage)]
        others = footage[(i // 25 + 1) % len(footage)]
        a = frames[random.integers(len(frames))]
        height, width = a.shape
        other = cv2.resize(others[random.integers(len(others))], (width, height))
        homography = draw_homography(random, motion, width, height)
        # Each pixel of B samples A at its projection, that is, the warp by the inverse homography.
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        seen = cv2.warpPerspective(a, homography, (width, height), flags=flags)
        mask = cv2.warpPerspective(np.full_like(a, 255), homography, (width, height), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP)
        b = spoil(random, np.where(mask > 0, seen, other), kind)
        yield motion, kind, a, b, homography


def opencv_homography(a, b, features):
    orb = cv2.ORB_create(nfeatures=features)
    (points_a, seen_a), (points_b, seen_b) = orb.detectAndCompute(a, None), orb.detectAndCompute(b, None)
    return matched(points_a, seen_a, points_b, seen_b)


def matched(points_a, seen_a, points_b, seen_b):
    if seen_a is None or seen_b is None:
        return None
    matches = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(seen_a, seen_b)
    if len(matches) <= 10:
        return None
    matches = sorted(matches, key=lambda match: match.distance)
    to = np.float32([points_a[match.queryIdx].pt for match in matches])
    of = np.float32([points_b[match.trainIdx].pt for match in matches])
    return cv2.findHomography(of, to, cv2.RANSAC, RANSAC_PX)[0]


def our_homography(binary, a, b, folder):
    """The homography, and the binary's reason for rejecting it, if any."""
    paths = [str(folder / name) for name in ("a.png", "b.png")]
    for path, frame in zip(paths, (a, b)):
        cv2.imwrite(path, frame, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    out = subprocess.run([binary, "keyframes", "--pair", *paths, "--json"], check=True, capture_output=True)
    flat = json.loads(out.stdout)["homography"]
    return None if flat is None else np.float64(flat).reshape(3, 3)


def error_px(found, truth, width, height):
    if found is None:
        return float("inf")
    return float(np.linalg.norm(moved(found, width, height) - moved(truth, width, height), axis=1).mean())


def truth(binary, clips, args):
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for motion, kind, a, b, wanted in draw_pairs(clips, args.pairs, args.seed):
            height, width = a.shape
            ours = error_px(our_homography(binary, a, b, Path(folder)), wanted, width, height)
            theirs = error_px(opencv_homography(a, b, args.features), wanted, width, height)
            rows.append((motion, kind, overlap(wanted, width, height), ours, theirs))
    share = [("overlap 0.3 to 0.5", lambda r: r[2] < 0.5), ("overlap 0.5 to 0.75", lambda r: 0.5 <= r[2] < 0.75),
             ("overlap above 0.75", lambda r: r[2] >= 0.75)]
    groups = [("all", lambda r: True)]
    groups += [(name, lambda r, name=name: r[0] == name) for name in MOTIONS[:4]] + [("all four", lambda r: r[0] == "all")]
    groups += [(name, lambda r, name=name: r[1] == name) for name in SPOILS] + share
    print(f"\n{len(rows)} warped frames, OpenCV with {args.features} features; errors in pixels\n")
    print("| pairs | number | ours, median | OpenCV, median | ratio | ours, failed | OpenCV, failed |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, belongs in groups:
        of = [r for r in rows if belongs(r)]
        if not of:
            continue
        ours, theirs = (statistics.median(r[i] for r in of) for i in (3, 4))
        failed = [sum(r[i] > FAILURE_PX for r in of) for i in (3, 4)]
        print(f"| {name} | {len(of)} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} | {failed[0]} | {failed[1]} |")


# --- speed ---------------------------------------------------------------------------------------


def opencv_choice(path, features, threshold=0.5):
    """Selection with OpenCV: decode everything, sample one frame per second, compare with the last key frame.

    Returns the key frames and the CPU time of everything but the decoding."""
    video = cv2.VideoCapture(path)
    count, step = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), max(int(video.get(cv2.CAP_PROP_FPS)), 1)
    sampled, index = [], 0
    while True:
        ok, frame = video.read()
        if not ok:
            break
        if index % step == 0 or index == count - 1:
            sampled.append((index, frame))
        index += 1
    start = time.process_time()
    orb = cv2.ORB_create(nfeatures=features)
    seen = [orb.detectAndCompute(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), None) for _, frame in sampled]
    height, width = sampled[0][1].shape[:2]
    kept = [0]
    for t in range(1, len(sampled)):
        homography = matched(*seen[kept[-1]], *seen[t])
        if homography is None or overlap(homography, width, height) < threshold or t == len(sampled) - 1:
            kept.append(t)
    return [sampled[t][0] for t in kept], time.process_time() - start


def of_children():
    """CPU seconds of all children so far; `os.times` has a resolution of 10 ms."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(command):
    """Wall and CPU seconds of a command including its children."""
    start, before = time.perf_counter(), of_children()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start, of_children() - before


def without_children(command):
    """CPU seconds of a command, excluding the FFmpeg processes that it starts."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        for name in ("ffmpeg", "ffprobe"):
            wrapper = Path(folder, name)
            wrapper.write_text(f'#!/bin/bash\n{shutil.which(name)} "$@"\ncode=$?\ntimes > {log}.$$\nexit $code\n')
            wrapper.chmod(0o755)
        before = of_children()
        path = f"{folder}:{os.environ['PATH']}"
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PATH": path})
        total = of_children() - before

        def seconds(text):
            minutes, rest = text.rstrip("s").split("m")
            return 60 * int(minutes) + float(rest)

        # Each log has one line of the wrapper, to be excluded too, and one of its child.
        words = [word for log in Path(folder).glob("log.*") for word in log.read_text().split()]
        return total - sum(map(seconds, words))


def speed(binary, clips, args):
    print(f"\nminimum of {args.rounds} rounds, seconds: wall / CPU\n")
    print("| clip | FFmpeg's decoding | ours | OpenCV | ours / FFmpeg, wall | ours without FFmpeg, CPU | OpenCV without decoding, CPU |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    script = [sys.executable, __file__, "--features", str(args.features), "--peer"]
    for clip in clips:
        select = "select=not(mod(n\\,25)),format=gray"
        decode = ["ffmpeg", "-v", "error", "-nostdin", "-y", "-i", clip, "-vf", select, "-f", "rawvideo", "/dev/null"]
        commands = [decode, [binary, "keyframes", "--json", clip], [*script, clip], script[:-1]]
        rounds = [[timed(command) for command in commands] for _ in range(args.rounds)]
        floor, ours, theirs, imports = ([min(r[i][k] for r in rounds) for k in (0, 1)] for i in range(4))
        theirs = [whole - part for whole, part in zip(theirs, imports)]
        own = min(without_children(commands[1]) for _ in range(args.rounds))
        own_theirs = min(opencv_choice(clip, args.features)[1] for _ in range(args.rounds))
        cells = [f"{wall:.2f} / {processor:.2f}" for wall, processor in (floor, ours, theirs)]
        cells += [f"{ours[0] / floor[0]:.2f}", f"{own:.3f}", f"{own_theirs:.3f}"]
        print(f"| {Path(clip).name} | {' | '.join(cells)} |")
        out = subprocess.run(commands[1], check=True, capture_output=True).stdout
        print(f"<!-- ours {json.loads(out)['keyframes']}, OpenCV {opencv_choice(clip, args.features)[0]} -->")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", nargs="?", help="path of the embodied-r binary")
    parser.add_argument("clips", nargs="*")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--features", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--peer", help="run only OpenCV's selection on this clip")
    args = parser.parse_args()
    if args.peer:
        print(opencv_choice(args.peer, args.features))
    elif args.binary:
        if args.pairs:
            truth(args.binary, args.clips, args)
        if args.rounds:
            speed(args.binary, args.clips, args)


main()
