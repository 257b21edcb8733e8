"""Writes `crates/vision/tests/fixtures/image_files.json`: small image files, and what Pillow reads from them.

Usage: make_image_fixtures.py [OUT]     (default: crates/vision/tests/fixtures/image_files.json)

  name    of the case
  file    the file in base64
  size    width and height that `transformers` sees: `ImageOps.exif_transpose(Image.open(FILE)).convert("RGB")`
  rgb     its bytes in base64; null if Pillow raises an error
"""
import base64
import io
import json
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps

WIDTH, HEIGHT = 16, 8


def pattern(width=WIDTH, height=HEIGHT, seed=0):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    smooth = np.stack([x * 9 + seed * 40, y * 14 + 10, 200 - 5 * x + y], -1)
    return Image.fromarray((smooth % 256).astype(np.uint8))


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, data):
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width, height, depth, color, rows, extra=b""):
    """A PNG of any color type and depth; `rows` are the bytes of each row."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def png16(channels, color):
    x, y = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    levels = np.stack([(x * 2711 + y * 977 + c * 12345 + 200) % 65536 for c in range(channels)], -1).astype(">u2")
    return png(WIDTH, HEIGHT, 16, color, [row.tobytes() for row in levels])


def with_alpha(image):
    x, _ = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    image = image.copy()
    image.putalpha(Image.fromarray((x * 10 % 256).astype(np.uint8)))
    return image


def rotated(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(pattern(), kind, exif=exif, **({"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}))


def on_canvas(gif):
    """The same GIF on a canvas that is 4 pixels larger to each side, at (3, 2)."""
    at = gif.index(b"," + struct.pack("<HHHH", 0, 0, WIDTH, HEIGHT))
    place = struct.pack("<HH", 3, 2)
    return gif[:6] + struct.pack("<HH", WIDTH + 4, HEIGHT + 4) + gif[10 : at + 1] + place + gif[at + 5 :]


def ycck(cmyk):
    """The same data with the transform of Adobe's marker for YCCK."""
    at = cmyk.index(b"Adobe")
    return cmyk[: at + 11] + b"\2" + cmyk[at + 12 :]


def files():
    base = pattern()
    gray = base.convert("L")
    palette = base.quantize(16)
    transparent = palette.copy()
    transparent.info["transparency"] = 3
    frames = [pattern(seed=seed) for seed in (0, 1, 2)]
    cmyk = Image.merge("CMYK", [*base.split(), gray.point(lambda level: level // 2)])
    jpeg = dict(quality=95, subsampling=0)
    yield "png rgb", saved(base, "PNG")
    yield "png rgba", saved(with_alpha(base), "PNG")
    yield "png gray", saved(gray, "PNG")
    yield "png gray and alpha", saved(with_alpha(gray), "PNG")
    yield "png one bit", saved(gray.convert("1"), "PNG")
    yield "png two bits", png(8, 2, 2, 0, [bytes([0b00011011, 0b11100100]), bytes([0xff, 0])])
    yield "png palette", saved(palette, "PNG")
    yield "png palette of four bits", saved(palette, "PNG", bits=4)
    yield "png palette with transparency", saved(transparent, "PNG", transparency=3)
    yield "png gray with transparency", png(2, 1, 8, 0, [bytes([7, 9])], chunk(b"tRNS", struct.pack(">H", 7)))
    yield "png 16 bits gray", png16(1, 0)
    yield "png 16 bits gray and alpha", png16(2, 4)
    yield "png 16 bits rgb", png16(3, 2)
    yield "png 16 bits rgba", png16(4, 6)
    yield "apng", saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100)
    yield "apng with a default image", saved(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100, default_image=True)
    yield "gif", saved(palette, "GIF")
    yield "gif with transparency", saved(transparent, "GIF", transparency=3)
    yield "gif smaller than its canvas", on_canvas(saved(palette, "GIF"))
    yield "gif with transparency smaller than its canvas", on_canvas(saved(transparent, "GIF", transparency=3))
    yield "gif animated", saved(frames[0].quantize(16), "GIF", save_all=True, append_images=[f.quantize(16) for f in frames[1:]], duration=100)
    yield "webp lossless", saved(base, "WEBP", lossless=True)
    yield "webp lossless with alpha", saved(with_alpha(base), "WEBP", lossless=True, exact=True)
    yield "webp lossy", saved(base, "WEBP", quality=95)
    yield "webp animated", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True, duration=100)
    yield "jpeg", saved(base, "JPEG", **jpeg)
    yield "jpeg 4:2:0", saved(base, "JPEG", quality=95, subsampling=2)
    yield "jpeg progressive", saved(base, "JPEG", progressive=True, **jpeg)
    yield "jpeg gray", saved(gray, "JPEG", quality=95)
    yield "jpeg cmyk", saved(cmyk, "JPEG", quality=95)
    yield "jpeg ycck", ycck(saved(cmyk, "JPEG", quality=95))
    for orientation in range(1, 9):
        yield f"jpeg orientation {orientation}", rotated("JPEG", orientation)
    yield "png orientation 6", rotated("PNG", 6)
    yield "webp orientation 8", rotated("WEBP", 8)
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    for kind, options in (("PNG", {}), ("JPEG", jpeg), ("WEBP", {"lossless": True}), ("GIF", {})):
        whole = saved(noise, kind, **options)
        yield f"{kind.lower()} truncated", whole[: len(whole) * 3 // 4]
        yield f"{kind.lower()} header alone", whole[:40]
    yield "jpeg without its last bytes", saved(noise, "JPEG", **jpeg)[:-40]
    yield "png zero width", png(0, 4, 8, 2, [b""] * 4)
    yield "png zero height", png(4, 0, 8, 2, [])
    yield "gif zero size", b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0, 0, 0) + b";"
    yield "png broken checksum", saved(base, "PNG").replace(b"IDAT", b"IDAX")
    yield "empty", b""
    yield "text", b"not an image"


def read(data):
    try:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        return image.size, base64.b64encode(image.tobytes()).decode()
    except Exception as error:  # noqa: BLE001
        print(type(error).__name__, error, file=sys.stderr)
        return None, None


def main():
    rows = []
    for name, data in files():
        print(name, end=" ", file=sys.stderr)
        size, rgb = read(data)
        print(size, file=sys.stderr)
        rows.append(dict(name=name, file=base64.b64encode(data).decode(), size=size, rgb=rgb))
    path = sys.argv[1] if len(sys.argv) > 1 else "crates/vision/tests/fixtures/image_files.json"
    with open(path, "w") as out:
        out.write("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
