"""Run a function on several real processes that talk to each other."""

import io
import multiprocessing
import os
import tempfile
import traceback
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.registry import init_default_scope


def run_on_ranks(world_size, function, *args, start="fork", backend="gloo"):
    """Call ``function(rank, *args)`` on each rank.

    Args:
        start: ``"spawn"`` for ranks that use a GPU, which a forked process cannot; the
            function must then be of a module that a new process finds, a helper's.

    Returns:
        list: Results by rank. An error on any rank is raised here, with its traceback.
    """
    # Where forked, the children need not import torch again. They use one thread,
    # because the parent's OpenMP pool does not survive a fork.
    context = multiprocessing.get_context(start)
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            context.Process(
                target=_work,
                args=(rank, world_size, folder, backend, function, args),
            )
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(timeout=120)
            if process.is_alive():
                for other in processes:
                    other.kill()
                raise TimeoutError(f"{function.__name__} hangs on {world_size} ranks")
        results = []
        for rank in range(world_size):
            file = Path(folder, f"result{rank}")
            if not file.exists():
                raise RuntimeError(f"rank {rank} died")
            ok, result = torch.load(io.BytesIO(file.read_bytes()), weights_only=False)
            if not ok:
                raise RuntimeError(f"rank {rank}:\n{result}")
            results.append(result)
        return results


def _work(rank, world_size, folder, backend, function, args):
    torch.set_num_threads(1)
    os.environ.update(  # what a launcher sets
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size)
    )
    init_default_scope("mmpretrain")
    if backend == "nccl":
        torch.cuda.set_device(rank)
    dist.init_process_group(
        backend,
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=world_size,
    )
    # A rank that communicates nothing may not leave while another still connects.
    dist.barrier()
    try:
        result = (True, function(rank, *args))
    except Exception:
        result = (False, traceback.format_exc())
    buffer = io.BytesIO()
    torch.save(result, buffer)
    # Renamed when whole, as the parent may kill this process at any time.
    part = Path(folder, f"part{rank}")
    part.write_bytes(buffer.getvalue())
    part.rename(Path(folder, f"result{rank}"))
    if result[0] and dist.is_initialized():
        dist.destroy_process_group()
