#!/usr/bin/env bash
# From an empty clone to box and mask AP: install, draw a sample data set, train Mask R-CNN with FasterNet-T0 from random
# weights (about 5 minutes on two CPU cores), evaluate it, and draw what it finds. Run again, it repeats nothing done.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh" ''

# OpenMP's threads wait for one another on a core; with another program there, training takes 2 to 6 times as long as
# with this (libgomp's manual). On a machine of its own it takes about 6 % longer with it.
[ -n "${OMP_WAIT_POLICY:-}" ] || export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-10000}"

config=configs/mask_rcnn_fasternet_t0_sample.py
work=work_dirs/mask_rcnn_fasternet_t0_sample

echo "== drawing the sample data set"
python tools/make_sample.py data/sample

epochs=$(sed -n 's/^max_epochs = \([0-9]*\).*/\1/p' $config)
checkpoint=$work/epoch_$epochs.pth
if [ -f "$checkpoint" ]; then
    echo "== already trained: $checkpoint"
else
    echo "== training from random weights"
    python tools/train.py $config --work-dir $work --resume
fi

if [ $work/test.log -nt "$checkpoint" ]; then
    echo "== already evaluated: $work/test.log"
else
    echo "== evaluating on 60 images that were not trained on"
    python tools/test.py $config "$checkpoint" --work-dir $work | tee $work/test.partial
    mv $work/test.partial $work/test.log
fi

if [ $work/detections.png -nt "$checkpoint" ]; then
    echo "== already drawn: $work/detections.png"
else
    echo "== drawing detections"
    python tools/draw_detections.py $config "$checkpoint" --out $work/detections.png
fi

ap() { grep -o "coco/$1_mAP: [0-9.]*" $work/test.log | tail -n 1 | cut -d' ' -f2; }
cat <<EOF

box AP     $(ap bbox)   (generated sample data, 60 validation images; says nothing about COCO)
mask AP    $(ap segm)
checkpoint $PWD/$checkpoint
picture    $PWD/$work/detections.png
EOF
