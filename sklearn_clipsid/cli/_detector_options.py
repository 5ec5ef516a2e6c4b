"""Options that name a saved detector and what belongs to this machine."""


def add_detector(parser):
    """Let a parser take a saved detector.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of one command.
    """
    parser.add_argument("detector", metavar="DETECTOR", help="a .skops file")


def add_place(parser):
    """Let a parser say what a file does not, as it belongs to this machine.

    Parameters
    ----------
    parser : argparse.ArgumentParser
        Of one command.
    """
    parser.add_argument(
        "--pretrained",
        metavar="PATH",
        help="the weights of the encoder, where the detector was fitted with a file",
    )
    parser.add_argument(
        "--cache-dir", metavar="DIR", help="keep embeddings in this folder"
    )
