"""An attention map to explore: hover, tap, or use the arrow keys, and see whom one query attends to.

It is plain HTML, SVG and a little script, so it works from a folder with no kernel and no network. Without
script it still shows its first query, and a table of all weights. Its output depends only on its input.
"""

import hashlib
import json
from collections.abc import Sequence
from html import escape
from string import Template

import torch
from torch import Tensor

_CSS = """
.attn{--card:#fcfcfa;--ink:#1f2933;--muted:#52606d;--line:#98a4b0;--on:#0072b2;--bar:#cfe4f2;--focus:#b34700;
 background:var(--card);color:var(--ink);border-radius:.5rem;padding:.9rem 1rem;margin:0;max-width:34rem;
 font:1rem/1.4 system-ui,sans-serif}
html[data-theme=dark] .attn,[data-jp-theme-light=false] .attn{--card:#1b222b;--ink:#e8edf2;--muted:#aab6c2;
 --line:#66727f;--on:#6cc1f2;--bar:#1f4a66;--focus:#ffb074}
html[data-theme=dark] .cell_output .text_html:has(>.attn){background:none!important;padding:0!important}
.attn fieldset,.attn ul{border:0;margin:0!important;padding:0!important;min-width:0;display:grid;
 grid-auto-rows:1fr;list-style:none}
.attn .attn-map{display:grid;grid-template-columns:minmax(4.5rem,auto) minmax(3rem,1fr) minmax(8rem,auto)}
.attn svg{width:100%;height:100%;contain:size;display:block}
.attn path{fill:none;stroke:var(--line);vector-effect:non-scaling-stroke}
.attn path.on{stroke:var(--on)}
.attn label,.attn li{display:flex;align-items:center;gap:.5rem;padding:0 .6rem;margin:.12rem 0!important;
 border-radius:.3rem;min-height:1.9rem;white-space:nowrap;overflow:hidden;position:relative}
.attn label{cursor:pointer;justify-content:flex-end}
.attn input{position:absolute;opacity:0}
.attn label:has(:checked){outline:2px solid var(--on);outline-offset:-2px;font-weight:600}
.attn label:has(:focus-visible){outline:3px solid var(--focus);outline-offset:-3px}
.attn li{justify-content:space-between}
.attn li::before{content:"";position:absolute;inset:0 auto 0 0;width:calc(var(--w)*100%);
 background:var(--bar)}
.attn li span{position:relative}
figure.attn figcaption{color:var(--muted);font:.875rem/1.4 system-ui,sans-serif;margin:0 0 .5rem;padding:0;
 text-align:left}
.attn [role=status]{margin:.6rem 0 .4rem;min-height:2.8em}
.attn .attn-table{overflow-x:auto}
.attn table{border-collapse:collapse;margin:.4rem 0}
.attn th,.attn td{padding:.2rem .5rem;text-align:right;font-weight:400;color:var(--ink)}
.attn summary,.attn select{cursor:pointer;color:var(--ink);font:inherit}
.attn select{background:var(--card);border:1px solid var(--line);border-radius:.3rem;padding:.1rem .4rem}
"""

# Each line is drawn by `path` in Python for the page without script, and by the same recipe here afterwards.
_SCRIPT = Template("""
(()=>{const root=document.currentScript.parentNode,W=$weights,Q=$queries,K=$keys;
let head=0,query=$start;const all=s=>[...root.querySelectorAll(s)],one=s=>root.querySelector(s);
const y=(i,a)=>100*(i+.5)/a.length,line=(i,j,w,on)=>`<path$${on?' class="on"':''}
 d="M0 $${y(i,Q)}C50 $${y(i,Q)} 50 $${y(j,K)} 100 $${y(j,K)}"
 stroke-width="$${.5+8*w}" stroke-opacity="$${on?.25+.75*w:.3*w}"/>`;
const show=q=>{const w=W[head];
 one("svg").innerHTML=[...Q.keys()].sort((a,b)=>(a==q)-(b==q)).map(i=>w[i].map((x,j)=>line(i,j,x,i==q)).join("")).join("");
 all("li").forEach((li,j)=>{li.style.setProperty("--w",w[q][j]);li.lastChild.textContent=w[q][j].toFixed(2)});
 all("tbody td").forEach((td,n)=>td.textContent=w[Math.floor(n/K.length)][n%K.length].toFixed(2));
 one("[role=status]").textContent=Q[q]+" attends to "+w[q].map((x,j)=>[x,j]).sort((a,b)=>b[0]-a[0]||a[1]-b[1])
  .slice(0,3).map(([x,j])=>K[j]+": "+x.toFixed(2)).join(", ")};
all("input").forEach((box,i)=>{box.onchange=()=>show(query=i);
 box.parentNode.onmouseenter=()=>show(i);box.parentNode.onmouseleave=()=>show(query)});
const pick=one("select");if(pick)pick.onchange=()=>{head=+pick.value;show(query)}})()
""")


class Explorer:
    """An attention map as HTML: notebooks and the book show ``_repr_html_``, a console shows one line."""

    def __init__(self, html: str, summary: str) -> None:
        """Keep the page fragment and the line that says the same in words."""
        self.html, self.summary = html, summary

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        """Say whom the first query attends to."""
        return self.summary


def attention_explorer(
    weights: Tensor | Sequence,
    queries: Sequence[str],
    keys: Sequence[str],
    *,
    title: str = "Who attends to whom",
    start: int = 0,
) -> Explorer:
    """Return an attention map to explore in a notebook or a page of the book.

    ``weights`` (q, k), or (h, q, k) for several heads with a menu to choose one. ``queries`` and ``keys``
    name the rows and columns. ``start`` is the query shown first.
    Raises ValueError if the names do not fit the weights, or ``start`` is not a query.

    >>> attention_explorer([[0.47, 0.53]], ["dream"], ["i", "have"])
    dream attends to have: 0.53, i: 0.47
    """
    table = torch.as_tensor(weights).detach().cpu().double()
    if table.dim() not in (2, 3) or table.shape[-2:] != (len(queries), len(keys)):
        raise ValueError(
            f"expected weights of shape (h, {len(queries)}, {len(keys)}) or ({len(queries)}, {len(keys)}), "
            f"got {tuple(table.shape)}"
        )
    if not 0 <= start < len(queries):
        raise ValueError(f"start must be one of the {len(queries)} queries, got {start}")
    heads = [
        [[round(w, 4) for w in row] for row in head] for head in table.reshape(-1, *table.shape[-2:]).tolist()
    ]
    summary = _sentence(queries[start], keys, heads[0][start])
    html = _page(heads, list(queries), list(keys), title, start, summary)
    return Explorer(html, summary)


def _sentence(query: str, keys: Sequence[str], row: list[float]) -> str:
    """Say which three keys the query attends to most."""
    strongest = sorted(range(len(keys)), key=lambda j: -row[j])[:3]
    return f"{query} attends to " + ", ".join(f"{keys[j]}: {row[j]:.2f}" for j in strongest)


def _page(heads: list, queries: list[str], keys: list[str], title: str, start: int, summary: str) -> str:
    """Put the parts together. The radio buttons share a name that only this content has."""
    facts = {"weights": heads, "queries": queries, "keys": keys, "start": start}
    as_json = {name: json.dumps(fact).replace("<", "\\u003c") for name, fact in facts.items()}
    name = "attn-" + hashlib.sha256(json.dumps([facts, title]).encode()).hexdigest()[:10]
    height = 2.15 * max(len(queries), len(keys))
    choices = "".join(
        f'<label><input type="radio" name="{name}"{" checked" * (i == start)}>'
        f"<span>{escape(query)}</span></label>"
        for i, query in enumerate(queries)
    )
    answers = "".join(
        f'<li style="--w:{w}"><span>{escape(key)}</span><span>{w:.2f}</span></li>'
        for key, w in zip(keys, heads[0][start], strict=True)
    )
    return (
        f'<figure class="attn"><style>{_CSS}</style><figcaption>{escape(title)}. '
        f"Point at a word on the left, or choose it with the arrow keys.</figcaption>{_head_menu(len(heads))}"
        f'<div class="attn-map" style="min-height:{height:.4g}rem">'
        f'<fieldset aria-label="query">{choices}</fieldset>'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">'
        f"{_lines(heads[0], start)}</svg>"
        f'<ul aria-label="keys and their weights">{answers}</ul></div>'
        f'<p role="status">{escape(summary)}</p>{_table(heads[0], queries, keys)}'
        f"<script>{_SCRIPT.substitute(as_json)}</script></figure>"
    )


def _head_menu(heads: int) -> str:
    """Return the menu of heads, or nothing where there is only one."""
    if heads == 1:
        return ""
    options = "".join(f'<option value="{i}">head {i + 1}</option>' for i in range(heads))
    return f'<select aria-label="head">{options}</select>'


def _lines(head: list[list[float]], start: int) -> str:
    """Draw one curve per query and key, as thick as its weight, with those of the chosen query on top."""
    paths = []
    for i in sorted(range(len(head)), key=lambda i: i == start):
        from_y = 100 * (i + 0.5) / len(head)
        for j, w in enumerate(head[i]):
            to_y = 100 * (j + 0.5) / len(head[i])
            chosen, opacity = (' class="on"', 0.25 + 0.75 * w) if i == start else ("", 0.3 * w)
            curve = f"M0 {from_y:g}C50 {from_y:g} 50 {to_y:g} 100 {to_y:g}"
            paths.append(
                f'<path{chosen} d="{curve}" stroke-width="{0.5 + 8 * w:g}" stroke-opacity="{opacity:g}"/>'
            )
    return "".join(paths)


def _table(head: list[list[float]], queries: list[str], keys: list[str]) -> str:
    """Return every weight as a table that folds out.

    It reads well aloud, and it is what remains where a notebook is shown untrusted, without style or script.
    """
    header = "".join(f'<th scope="col">{escape(key)}</th>' for key in keys)
    rows = "".join(
        f'<tr><th scope="row">{escape(query)}</th>' + "".join(f"<td>{w:.2f}</td>" for w in row) + "</tr>"
        for query, row in zip(queries, head, strict=True)
    )
    return (
        '<details><summary>All weights as a table</summary><div class="attn-table" tabindex="0" '
        f'role="region" aria-label="table of weights"><table><thead><tr><td></td>{header}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></details>"
    )
