"""Finetune an ImageNet-pretrained network on your own photos."""
