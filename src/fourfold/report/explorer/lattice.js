// The points of a surface with two or three coordinates, and values between them.

class Lattice {
  constructor(surface) {
    this.points = surface.points;
    this.dims = surface.axes.length;
    this.steps = new Set(this.points.map((point) => point[0])).size - 1;
    this.isSimplex = this.points.length < (this.steps + 1) ** this.dims;
    this.byPlace = new Map(this.points.map((point, k) => [this.key(this.index(point)), k]));
  }

  index(point) {
    return point.map((x) => Math.round(x * this.steps));
  }

  key(index) {
    return index.join();
  }

  // Number of the point with this index, undefined off the surface.
  number(index) {
    return this.byPlace.get(this.key(index));
  }

  // Numbers of the points of a slice, all if there is no third coordinate.
  slice(k) {
    const all = this.points.keys();
    return [...all].filter((n) => this.dims < 3 || this.index(this.points[n])[2] === k);
  }

  // The share of the axes that a slice has: a simplex becomes smaller.
  room(k) {
    return this.isSimplex && this.dims > 2 ? 1 - k / this.steps : 1;
  }

  // The nearest place of a slice.
  clip([u, v], k) {
    let [x, y] = [u, v].map((c) => Math.min(Math.max(c, 0), 1));
    const excess = this.isSimplex ? x + y - this.room(k) : 0;
    if (excess > 0) {
      [x, y] = [x - excess / 2, y - excess / 2];
      if (x < 0) [x, y] = [0, this.room(k)];
      if (y < 0) [x, y] = [this.room(k), 0];
    }
    return [x, y];
  }

  // The value at a place of a slice: bilinear within a cell of the grid, linear within a triangle.
  value(values, [u, v], k) {
    const [x, y] = [u * this.steps, v * this.steps];
    const i = Math.max(0, Math.min(Math.floor(x + 1e-9), this.steps - 1));
    const j = Math.max(0, Math.min(Math.floor(y + 1e-9), this.steps - 1));
    const [s, t] = [x - i, y - j];
    const at = (di, dj) => {
      const index = this.dims < 3 ? [i + di, j + dj] : [i + di, j + dj, k];
      return values[this.number(index)] ?? NaN;
    };
    const mix = (...parts) => parts.reduce((sum, [share, di, dj]) => {
      return Math.abs(share) < 1e-9 ? sum : sum + share * at(di, dj);
    }, 0);
    if (!this.isSimplex) {
      return mix([(1 - s) * (1 - t), 0, 0], [s * (1 - t), 1, 0], [(1 - s) * t, 0, 1], [s * t, 1, 1]);
    }
    if (s + t <= 1 + 1e-9) return mix([1 - s - t, 0, 0], [s, 1, 0], [t, 0, 1]);
    return mix([s + t - 1, 1, 1], [1 - s, 0, 1], [1 - t, 1, 0]);
  }

  // Coordinates and a matrix of values (v down, u across) of a slice; finer where the rim is oblique.
  matrix(values, k) {
    const fine = this.isSimplex ? Math.max(1, Math.ceil(96 / this.steps)) : 1;
    const count = this.steps * fine;
    const axis = Array.from({ length: count + 1 }, (_, i) => i / count);
    const isIn = (u, v) => !this.isSimplex || u + v <= this.room(k) + 1e-9;
    const z = axis.map((v) => axis.map((u) => (isIn(u, v) ? this.value(values, [u, v], k) : null)));
    return { axis, z: z.map((row) => row.map((x) => (Number.isFinite(x) ? x : null))) };
  }
}
