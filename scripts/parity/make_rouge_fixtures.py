"""Writes the ROUGE fixtures of `crates/rewards/tests/fixtures` with `rouge_score` and NLTK's Porter stemmer.

Usage: make_rouge_fixtures.py [OUT]     (pip install rouge-score)

  rouge.json  pairs of texts with the F-measures of ROUGE-1, ROUGE-2 and ROUGE-L, stemmed
  stems.json  words and their stems: suffixes of every step of the algorithm after stems of several shapes, and irregular words
"""
import json
import pathlib
import random
import sys

from nltk.stem.porter import PorterStemmer
from rouge_score import rouge_scorer

STEMS = ("t", "tr", "cat", "fall", "hop", "fil", "fail", "siz", "relat", "condit", "happ", "enjo", "syzyg", "gener", "toy", "y", "o",
         "adjust", "rat", "ceas", "control", "rol", "agr", "f", "bl", "troubl", "conflat", "fizz", "hiss", "tann", "sk", "yyy", "ann", "e1")
SUFFIXES = ("", "s", "es", "ies", "sses", "ss", "ed", "ied", "eed", "ing", "y", "ational", "tional", "enci", "anci", "izer", "bli", "abli", "alli",
            "entli", "eli", "ousli", "ization", "ation", "ator", "alism", "iveness", "fulness", "ousness", "aliti", "iviti", "biliti", "fulli",
            "logi", "ology", "icate", "ative", "alize", "iciti", "ical", "ful", "ness", "al", "ance", "ence", "er", "ic", "able", "ible", "ant",
            "ement", "ment", "ent", "ion", "sion", "tion", "ou", "ism", "ate", "iti", "ous", "ive", "ize", "e", "l", "ll", "ally", "allally")
IRREGULAR = ("sky", "skies", "dying", "lying", "tying", "news", "innings", "inning", "outings", "outing", "cannings", "canning", "howe",
             "proceed", "exceed", "succeed", "succeeds", "at", "a", "is", "ties", "dies", "died", "tied", "by")
WORDS = ("the", "red", "doors", "door", "is", "sitting", "sat", "turned", "turning", "left", "left-hand", "kitchens", "kitchen", "Table", "3.5",
         "metres", "generalization", "happily", "happy", "relational", "don't", "café", "ÜBER", "a", "of", "controlling", "skies", "flying")


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "crates/rewards/tests/fixtures"
    stemmer = PorterStemmer()
    words = sorted({stem + suffix for stem in STEMS for suffix in SUFFIXES} | set(IRREGULAR))
    (out / "stems.json").write_text("[" + ",\n".join(json.dumps([word, stemmer.stem(word)]) for word in words) + "]\n")
    scorer = rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    rng = random.Random(0)
    text = lambda: " ".join(rng.choice(WORDS) for _ in range(rng.choice((1, 2, 3, 5, 9, 14))))
    pairs = [("", ""), ("", "a door"), ("a door", ""), ("...", "a"), ("cats sit on a mat", "The cat is sitting on the mats"), ("left", "Left.")]
    pairs += [(text(), text()) for _ in range(110)]
    cases = []
    for answer, reference in pairs:
        scores = scorer.score(reference, answer)
        cases.append({"answer": answer, "reference": reference, "rouge1": scores["rouge1"].fmeasure, "rouge2": scores["rouge2"].fmeasure,
                      "rouge_l": scores["rougeL"].fmeasure})
    (out / "rouge.json").write_text("[" + ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases) + "]\n")


main()
