#!/bin/sh
# Makes _vendor/_static/mathjax, the copy of MathJax that lets the book show formulas with no network.
# Needs npm. Run it from the root of the repository; it is only needed to move to another version.
# The copy is not under _static/, because Jupyter Book would load every script there on every page.
set -eu

version=3.2.2
target=_vendor/_static/mathjax
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

npm install --prefix "$work" --no-save --ignore-scripts "mathjax@$version"
package=$work/node_modules/mathjax

rm -rf "$target"
mkdir -p "$target/output/chtml/fonts" "$target/input/tex"
cp "$package/LICENSE" "$package/es5/tex-chtml.js" "$target/"
cp -R "$package/es5/output/chtml/fonts/woff-v2" "$target/output/chtml/fonts/"
cp -R "$package/es5/input/tex/extensions" "$target/input/tex/"
echo "MathJax $version is in $target"
