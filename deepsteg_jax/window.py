"""A window that shows pictures side by side: the only file that knows tkinter."""

import numpy as np

from deepsteg_jax.errors import UserError

_INSTEAD = "or write a file with --output"
_CAPTION = 18  # pixels, a line of text


class Window:
    """Shows one picture of several panels, a name below each, and a text; only in the thread that made it.

    Attributes:
        open: false once the user has pressed q or Esc, or closed the window.
    """

    def __init__(self, names: list[str], width: int, height: int):
        """Open the window.

        Args:
            names: of the panels.
            width: pixels of each panel.
            height: pixels.

        Raises:
            UserError: there is no tkinter, or no display.
        """
        try:
            import tkinter
        except ImportError:
            raise UserError(
                f"the window needs tkinter: install it (apt install python3-tk), {_INSTEAD}"
            ) from None
        try:
            self._root = tkinter.Tk()
        except tkinter.TclError as error:
            raise UserError(f"no window can be opened ({error}): log in with a display, {_INSTEAD}") from None
        self.open = True
        self._root.title("deepsteg_jax: q or Esc ends")
        self._root.resizable(False, False)
        self._root.protocol("WM_DELETE_WINDOW", self._end)
        for key in ("q", "<Escape>"):
            self._root.bind(key, self._end)
        whole = width * len(names)
        self._canvas = tkinter.Canvas(
            self._root, width=whole, height=height + 2 * _CAPTION, background="black", highlightthickness=0
        )
        self._canvas.pack()
        self._image = tkinter.PhotoImage(width=whole, height=height)
        self._canvas.create_image(0, 0, image=self._image, anchor="nw")
        for i, name in enumerate(names):
            self._canvas.create_text((i + 0.5) * width, height + _CAPTION / 2, text=name, fill="white")
        self._text = self._canvas.create_text(4, height + 1.5 * _CAPTION, anchor="w", fill="#a0e0a0")

    def _end(self, *_) -> None:
        self.open = False

    def show(self, picture: np.ndarray, text: str) -> None:
        """Draw the panels, uint8 [height, width * panels, 3], and the text below them."""
        height, width, _ = picture.shape
        self._image.configure(data=b"P6 %d %d 255\n" % (width, height) + picture.tobytes())
        self._canvas.itemconfigure(self._text, text=text)

    def update(self) -> None:
        """Let the window react; call it often."""
        self._root.update()

    def close(self) -> None:
        """Close it."""
        self.open = False
        self._root.destroy()
