// Which words two texts do not share: Myers' greedy O(ND) difference over words (Myers 1986), bounded.
const MOST_EDITS = 1500; // beyond this the texts have little in common, and marking would only add noise

const words = (text) => text.match(/\s+|[\p{L}\p{N}_'’]+|[^\s\p{L}\p{N}_]/gu) ?? [];

// For each text a list of [string, differs].
export function diff(left, right) {
  const tokens = [words(left), words(right)];
  const solid = tokens.map((list) => list.flatMap((word, i) => (/\s/.test(word[0]) ? [] : [i])));
  const [a, b] = solid.map((list, side) => list.map((i) => tokens[side][i]));
  const kept = common(a, b);
  return tokens.map((list, side) => {
    const same = new Set(kept.map((match) => solid[side][match[side]]));
    const marked = list.map((word, i) => [word, !/\s/.test(word[0]) && !same.has(i)]);
    return joined(marked);
  });
}

// Index pairs of a longest common subsequence of a and b.
function common(a, b) {
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let [endA, endB] = [a.length, b.length];
  while (endA > start && endB > start && a[endA - 1] === b[endB - 1]) (endA--, endB--);
  const pairs = Array.from({ length: start }, (_, i) => [i, i]);
  for (let i = 0; endA + i < a.length; i++) pairs.push([endA + i, endB + i]);
  return pairs.concat(middle(a.slice(start, endA), b.slice(start, endB)).map(([x, y]) => [x + start, y + start]));
}

function middle(a, b) {
  const most = Math.min(a.length + b.length, MOST_EDITS);
  const reach = new Map([[1, 0]]); // furthest x on diagonal k
  const trace = [];
  for (let d = 0; d <= most; d++) {
    trace.push(new Map(reach));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && reach.get(k - 1) < reach.get(k + 1));
      let x = down ? reach.get(k + 1) : reach.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      reach.set(k, x);
      if (x >= a.length && x - k >= b.length) return walk(trace, a.length, b.length);
    }
  }
  return [];
}

function walk(trace, x, y) {
  const pairs = [];
  for (let d = trace.length - 1; d >= 0; d--) {
    const k = x - y;
    const reach = trace[d];
    const down = k === -d || (k !== d && reach.get(k - 1) < reach.get(k + 1));
    const fromX = d === 0 ? 0 : reach.get(down ? k + 1 : k - 1);
    const fromY = d === 0 ? 0 : fromX - (down ? k + 1 : k - 1);
    while (x > fromX && y > fromY && x > 0 && y > 0) pairs.push([--x, --y]);
    [x, y] = [fromX, fromY];
  }
  return pairs;
}

// Neighbouring words with the same mark become one run; a space between two marked words is marked too.
function joined(marked) {
  const runs = [];
  marked.forEach(([word, differs], i) => {
    const space = /\s/.test(word[0]);
    const mark = space ? Boolean(marked[i - 1]?.[1] && marked[i + 1]?.[1]) && !word.includes("\n") : differs;
    if (runs.length && runs.at(-1)[1] === mark) runs.at(-1)[0] += word;
    else runs.push([word, mark]);
  });
  return runs;
}

// The runs as text nodes and <mark>; nothing of the text is ever parsed as HTML.
export function marked(runs) {
  const fragment = document.createDocumentFragment();
  for (const [text, differs] of runs) {
    const node = differs ? document.createElement("mark") : document.createTextNode(text);
    if (differs) node.textContent = text;
    fragment.append(node);
  }
  return fragment;
}
