"""Options that several tools have; light, so that --help is there at once."""

import argparse


class CfgOptions(argparse.Action):
    """MMEngine's DictAction, which is imported when there is an option to parse."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for value in values:
            key, sign, _ = value.partition("=")
            if not (key and sign):
                parser.error(f"{option_string} {value}: must be key=value")
        from mmengine.config import DictAction

        action = DictAction(self.option_strings, self.dest)
        action(parser, namespace, values, option_string)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that training and testing share."""
    parser.add_argument("--work-dir", help="where logs, checkpoints and metrics go")
    parser.add_argument("--amp", action="store_true", help="mixed precision")
    parser.add_argument("--no-pin-memory", action="store_true")
    parser.add_argument(
        "--trust-checkpoint",
        action="store_true",
        help="load checkpoints that hold more than tensors and plain data; a pickle "
        "can run any code, so only for files whose source you trust",
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        action=CfgOptions,
        help="override settings: key=value; lists as key=a,b or key='[a,b]'",
    )
    parser.add_argument(
        "--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none"
    )
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)


def add_image_folders(parser: argparse.ArgumentParser) -> None:
    """Add the options that take folders of images in place of a config's data."""
    parser.add_argument(
        "--data-root",
        metavar="DIR",
        help="use the images below this folder, of any size, in place of the config's",
    )
    parser.add_argument(
        "--val-data-root",
        metavar="DIR",
        help="with --data-root: labeled images to evaluate on, a sub-folder per class; "
        "DIR of --data-root then has sub-folders of the same names",
    )
