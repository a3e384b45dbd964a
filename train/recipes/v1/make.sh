#!/usr/bin/env bash
# Makes the shipped checkpoint again, from text and recordings to runs/v1/checkpoint:
#
#   bash train/recipes/v1/make.sh DATA
#
# DATA holds text/ (JSON-lines text sets) and speech/train/ with librispeech_251_speakers, speechocean762,
# kathleen_arctic and fsdd_digits, each with a manifest.jsonl; the model card says what they are and under which
# licences. Two Debian packages give the books: `apt-get install bible-kjv`, and r-cran-janeaustenr_*.deb in the folder
# that AUSTEN names (`apt-get download r-cran-janeaustenr`; default: here).
#
# It takes some seven hours on 2 cores with AMX, about twice as long without, and 15 GB under runs/. Stopped, the same
# command goes on where it was. BF16=yes trains in bfloat16: set it where `lscpu` names AMX or AVX512-BF16.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

data=${1:?Name the folder with text/ and speech/train/: bash train/recipes/v1/make.sh DATA}
python=${PYTHON:-.venv/bin/python}
austen=(${AUSTEN:-.}/r-cran-janeaustenr_*.deb)
speech=$data/speech/train
for needed in "$data/text" "$speech"/{librispeech_251_speakers,speechocean762,kathleen_arctic,fsdd_digits}/manifest.jsonl "${austen[0]}"; do
  [[ -e $needed ]] || { echo "$needed is not there. The top of train/recipes/v1/make.sh says what is needed." >&2; exit 2; }
done
precision=()
[[ ${BF16:-} ]] && precision=(--set 'loop.precision="bf16"')

# Runs a command whose result is the file or folder named first, unless that is there.
made() {
  local result=$1
  shift
  [[ -e $result ]] || "$python" -m "$@"
}

speak() { made "runs/$1/manifest.jsonl" train.synthesis.synthesize "${@:2}" --out "runs/$1"; }
encode() { "$python" -m train.data.features "$1" --out "runs/features/$2" "${@:3}"; } # skips the shards that are there
train() { "$python" -m train.stages.adaptation "train/recipes/v1/$1.toml" --out "runs/v1/$1" "${@:2}"; } # goes on
mean() { made "$1/config.json" train.stages.averaging "${@:2}" --out "$1"; }

# Text and speech. A seed is what was drawn for v1.
speak synthetic "$data/text" --seed 2 --count 20000
made runs/literature.jsonl train.data.literature --austen "${austen[0]}" --out runs/literature.jsonl
speak literature runs/literature.jsonl --seed 4 --count 10000
made runs/vocabulary.jsonl train.data.vocabulary runs/synthetic/manifest.jsonl --words 20000 --least 15 --seed 3 --out runs/vocabulary.jsonl
speak vocabulary runs/vocabulary.jsonl --seed 6 --count 10000
speak kokoro runs/vocabulary.jsonl runs/literature.jsonl "$data/text" --engines kokoro=1 --seed 5 --count 2400
made runs/pseudo/manifest.jsonl train.labels.pseudo_label "$speech/librispeech_251_speakers" --out runs/pseudo
made runs/rare.jsonl train.data.vocabulary runs/{synthetic,literature,vocabulary,kokoro,pseudo}/manifest.jsonl --words 40000 --least 3 --seed 5 --out runs/rare.jsonl
speak rare runs/rare.jsonl --seed 5 --count 100000

encode runs/synthetic synthetic --seed 2
encode runs/literature literature --seed 4
encode runs/vocabulary vocabulary --seed 6
encode runs/rare rare --seed 5
encode runs/kokoro kokoro --seed 5 --copies 3
encode runs/pseudo librispeech --copies 6
encode "$speech/speechocean762" speechocean
encode "$speech/kathleen_arctic" kathleen --copies 2
encode "$speech/fsdd_digits" digits --limit 400

train first "${precision[@]}"
mean runs/v1/first_mean runs/v1/first/checkpoint-{4500,5000,5500,6000,6500}
train second "${precision[@]}"
mean runs/v1/second_mean runs/v1/second/checkpoint-{3500,4000,4500,5000,5500}

# So that nothing is heard where nobody speaks.
speak synthetic_anew "$data/text" --seed 11 --count 3600
made runs/no_speech/manifest.jsonl train.synthesis.no_speech --count 600 --out runs/no_speech
encode runs/synthetic_anew synthetic_anew --seed 11
encode runs/no_speech no_speech
encode "$speech/speechocean762" learners --limit 1500
encode "$speech/kathleen_arctic" kathleen_once --limit 500
encode runs/pseudo librispeech_twice --copies 2

train third "${precision[@]}"
mean runs/v1/third_mean runs/v1/third/checkpoint-{600,800,1000,1200}
mean runs/v1/checkpoint runs/v1/second_mean runs/v1/second_mean runs/v1/third_mean
echo "runs/v1/checkpoint is made. Look at it: $python -m train.evaluation.reading assets/samples --checkpoint runs/v1/checkpoint"
