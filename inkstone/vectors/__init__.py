"""Word vectors: a corpus becomes one vector per word, and words used alike get vectors that point alike.

    vocabulary     words and their counts; a corpus as numbers
    word2vec       skip-gram and CBOW with negative sampling, as matrix products over chunks of text
    cooccurrence   how often words stand near each other
    glove          weighted least squares over those counts, tile by tile
    parallel       arrays that several processes work on at once
    store          `WordVectors`: words and their matrix; neighbours, similarity; a folder on disk
    formats        the files of word2vec (text and binary) and GloVe, read and written
    evaluation     word similarity and analogy sets
    embeddings     the first values of a model's embedding matrix

Plain numpy, no torch. Not covered: vectors of word pieces (fastText), corpora larger than memory (a token takes
eight bytes).
"""

from __future__ import annotations
